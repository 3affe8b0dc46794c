"""What every declaration of the typed stack has in common, and of the other files that we read through pydantic.

Owns `Part`, the base of them all, and that what a stack means does not depend on what else is installed: pydantic
looks through the metadata of every installed distribution for plugins, which may change how a value is validated, and
that search alone is a tenth of `imageworks check` (decision 085).
"""

from __future__ import annotations

import sys
from types import ModuleType

from pydantic import BaseModel, ConfigDict

_PLUGIN_LOADER = "pydantic.plugin._loader"


def _no_plugins() -> tuple[()]:
    return ()


if _PLUGIN_LOADER not in sys.modules:
    _loader = ModuleType(_PLUGIN_LOADER, "Finds no plugins, and does not look for any.")
    _loader.__dict__["get_plugins"] = _no_plugins
    sys.modules[_PLUGIN_LOADER] = _loader


class Part(BaseModel):
    """Common behaviour: frozen, and a key that is not declared is refused; validators are built when first asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
