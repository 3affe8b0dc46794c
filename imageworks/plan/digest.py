"""The hash of a plan: equal for stacks that mean the same.

Owns what counts: everything but spans (moving a line changes nothing), `inputs` and `out` (where bytes came from
and go to), and the hash itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from imageworks.plan.bundle import sha256
from imageworks.plan.ir import Plan

NOT_COUNTED = frozenset({"hash", "inputs", "out"})


def digest(plan: Plan) -> str:
    """Hex sha256 of the canonical JSON of `plan`."""
    fields = {item.name: getattr(plan, item.name) for item in dataclasses.fields(plan) if item.name not in NOT_COUNTED}
    return sha256(_plain(fields))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if key != "span"}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
