"""Syntax tree -> typed stack: what a person declared, checked, with every default filled in.

Owns that pydantic's plugins stay out: pydantic lets any distribution that happens to be installed change how values
are validated, so what a stack means would depend on the machine (its documentation, "Pydantic Plugins"). The
programs that we start do not inherit the variable: the launcher gives them a closed environment. The variable alone
still costs a tenth of `imageworks check`, so the module that would look for plugins is not loaded at all (decision 085).
"""

import os
import sys
from types import ModuleType

_LOADER = "pydantic.plugin._loader"

os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
if _LOADER not in sys.modules and os.environ["PYDANTIC_DISABLE_PLUGINS"] == "__all__":
    sys.modules[_LOADER] = ModuleType(_LOADER, "Finds no plugins, and does not look for any.")
    sys.modules[_LOADER].__dict__["get_plugins"] = lambda: ()
