"""plan.json: the why of everything on one profile.

Owns the projection of the plan onto JSON: placements, sums by term, ranks, what is left out and why, every flag
with its reason and its line in the stack file (`at`). Left out are the hashes of the sources (manifest.json has
them) and the prompt texts (prompts.json).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from imageworks import contract
from imageworks.diagnostics.model import Span
from imageworks.plan.ir import Memory, Plan
from imageworks.targets.artifact import Artifact
from imageworks.targets.places import place

NAME = "plan"
SCHEMA = 1


_ATOMS = frozenset({str, int, float, bool, type(None)})


def _plain(value: Any) -> Any:
    if isinstance(value, Span):
        return place(value)
    if isinstance(value, tuple):
        return [item if type(item) in _ATOMS else _plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: item if type(item) in _ATOMS else _plain(item) for key, item in value.items()}
    if not dataclasses.is_dataclass(value):
        return value
    kind: Any = type(value)
    found = ((key, getattr(value, name)) for name, key in _keys(kind))
    data = {key: item if type(item) in _ATOMS else _plain(item) for key, item in found}
    return data | {"total": value.total} if isinstance(value, Memory) else data


@cache
def _keys(kind: Any) -> tuple[tuple[str, str], ...]:
    """The fields of a dataclass, each with its key here, sorted by that as they are written."""
    fields = ((item.name, "at" if item.name == "span" else item.name) for item in dataclasses.fields(kind))
    return tuple(sorted(fields, key=lambda field: field[1]))


def document(plan: Plan) -> dict[str, Any]:
    """The plan as JSON data; memory in bytes, time in seconds."""
    data: dict[str, Any] = _plain(dataclasses.replace(plan, inputs={}))
    del data["inputs"], data["bundle"]
    return data | {"schema": SCHEMA, "bundle_hash": plan.bundle.hash}


def emit(plan: Plan, plans: Sequence[Plan]) -> Iterable[Artifact]:
    """One file."""
    del plans  # each profile explains itself
    yield Artifact("plan.json", contract.to_json(document(plan)))
