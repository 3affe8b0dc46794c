"""plan.json: the why of everything on one profile.

Owns the projection of the plan onto JSON: placements, sums by term, ranks, what is left out and why, every flag
with its reason and its line in the stack file (`at`). Left out are the hashes of the sources (manifest.json has
them) and the prompt texts (prompts.json).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from imageworks import contract
from imageworks.diagnostics.model import Span
from imageworks.plan.ir import Memory, Plan
from imageworks.targets.artifact import Artifact
from imageworks.targets.places import place

NAME = "plan"
SCHEMA = 1


ATOMS = frozenset({str, int, float, bool, type(None)})


def _plain(value: Any) -> Any:
    if type(value) in ATOMS:
        return value
    if isinstance(value, Span):
        return place(value)
    if dataclasses.is_dataclass(value):
        data = {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
        if "span" in data:
            data["at"] = data.pop("span")
        return data | {"total": value.total} if isinstance(value, Memory) else data
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def document(plan: Plan) -> dict[str, Any]:
    """The plan as JSON data; memory in bytes, time in seconds."""
    data: dict[str, Any] = _plain(dataclasses.replace(plan, inputs={}))
    del data["inputs"], data["bundle"]
    return data | {"schema": SCHEMA, "bundle_hash": plan.bundle.hash}


def emit(plan: Plan, plans: Sequence[Plan]) -> Iterable[Artifact]:
    """One file."""
    del plans  # each profile explains itself
    yield Artifact("plan.json", contract.to_json(document(plan)))
