"""Syntax tree -> typed stack: what a person declared, checked, with every default filled in.

Owns that pydantic's plugins stay out: pydantic lets any distribution that happens to be installed change how values
are validated, so what a stack means would depend on the machine (its documentation, "Pydantic Plugins"). The
programs that we start do not inherit the variable: the launcher gives them a closed environment.
"""

import os

os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
