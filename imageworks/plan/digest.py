"""The hash of a plan: equal for stacks that mean the same.

Owns what counts: everything but spans (moving a line changes nothing), `inputs` and `out` (where bytes came from
and go to), `residents` (what follows from the rest), and the hash itself.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from imageworks.plan.bundle import sha256
from imageworks.plan.ir import Plan

NOT_COUNTED = frozenset({"hash", "inputs", "out", "residents"})


def digest(plan: Plan) -> str:
    """Hex sha256 of the canonical JSON of `plan`."""
    fields = {item.name: getattr(plan, item.name) for item in dataclasses.fields(plan) if item.name not in NOT_COUNTED}
    return sha256(fields, _parts)


def _parts(value: Any) -> dict[str, Any]:
    # what dataclasses.fields() reads, without making a tuple of it for each of many thousand values
    return {name: getattr(value, name) for name in value.__dataclass_fields__ if name != "span"}
