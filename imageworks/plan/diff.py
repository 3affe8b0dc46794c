"""What differs between two plans, field by field, in the words of stack.yaml and with the line behind each.

Owns the comparison of plans (also of one that was read back from plan.json), the way from a field of the plan to
the key of stack.yaml that decides it, and which differences merely follow from others. Pure. Texts that explain
(`why`) and places are no differences. Compares what was planned, never what runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from imageworks.diagnostics.model import Span
from imageworks.model.loaded import Loaded
from imageworks.plan.ir import Plan
from imageworks.plan.keys import keys
from imageworks.values import dataclass

Path = tuple[str, ...]
Data = Mapping[str, Any]

# Texts, places, and what names the plan rather than says what it is. `total` and `schema` stand only in plan.json.
_NOT_COMPARED = frozenset(
    {
        "why",
        "context_why",
        "concurrency_why",
        "reason",
        "residents",
        "span",
        "at",
        "hash",
        "inputs",
        "out",
        "total",
        "schema",
    }
)
_IDENTITY = ("id", "model", "name", "stage", "slot")
_DERIVED = frozenset({"memory", "launch", "slug", "served_name", "order", "vram_mib"})


@dataclass(frozen=True, slots=True)
class Change:
    """One field of the plan. `old` or `new` is None where the field, or what it belongs to, is not there.

    `field` is the dotted key of stack.yaml that a person would edit, `at` the place in the new stack that decides
    the value (a default's, or that of the nearest key above, where the key itself is not written). `derived`: it
    follows from others, like a sum of memory.
    """

    path: Path
    field: str
    old: object
    new: object
    at: Span | None
    derived: bool


def data(plan: Plan) -> Data:
    """`plan` as `compare` wants it."""
    plain = {item.name: getattr(plan, item.name) for item in dataclasses.fields(plan) if item.name != "bundle"}
    return normal({**plain, "bundle_hash": plan.bundle.hash})


def normal(document: Data) -> Data:
    """The text of plan.json, parsed, as `compare` wants it: lists of named things by name, no explanations."""
    normalised = _normal(document)
    assert isinstance(normalised, dict)  # noqa: S101 - a mapping stays one
    return normalised


def _normal(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _normal(item) for key, item in value.items() if key not in _NOT_COMPARED}
    if isinstance(value, list | tuple):
        return _named([_normal(item) for item in value])
    return value


def _named(items: list[object]) -> object:
    """A list of named things as a map; their order, where it can matter, is a field of its own."""
    rows = [item for item in items if isinstance(item, dict)]
    key = next((key for key in _IDENTITY if rows and all(key in row for row in rows)), None)
    if not rows or key is None or len(rows) < len(items):
        return items
    named: dict[str, object] = {}
    for row in rows:
        name = str(row[key]) or "word"
        while name in named:  # a flag that is repeated, a word without a name
            name += "+"
        named[name] = {part: item for part, item in row.items() if part != key}
    return {**named, "order": list(named)} if key == "model" else named


def compare(old: object, new: object, path: Path = ()) -> Iterator[tuple[Path, object, object]]:
    """Paths at which two trees of maps differ, with both values, sorted; None for what is not there."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys(), key=str):
            yield from compare(old.get(key), new.get(key), (*path, str(key)))
    elif old != new:
        yield path, old, new


def changes(old: Data, new: Data, loaded: Loaded, profile: str) -> tuple[Change, ...]:
    """Differences of two plans of `profile` (see `data`, `normal`); `loaded` is the stack behind the new one."""
    found = compare(old, new)
    return tuple(_change(loaded, profile, path, before, after) for path, before, after in found)


def _change(loaded: Loaded, profile: str, path: Path, old: object, new: object) -> Change:
    candidates = keys(profile, path)
    field = ".".join(str(part) for part in candidates[0])
    return Change(path, field, old, new, _place(loaded, candidates), _derived(loaded, candidates[0], path, old, new))


def _derived(loaded: Loaded, key: Path, path: Path, old: object, new: object) -> bool:
    if "flags" in path and (key in loaded.places or old is None or new is None):
        return False  # a flag that a person wrote, or one that came or went
    return any(part in _DERIVED for part in path)


def _place(loaded: Loaded, candidates: Sequence[tuple[str, ...]]) -> Span | None:
    """Where the first of the keys that is written stands; else the nearest key above the first."""
    written = next((key for key in candidates if key in loaded.places), candidates[0])
    return loaded.key(*written)


def causes(found: Iterable[Change]) -> tuple[Change, ...]:
    """Without what merely follows from others; all, when nothing else is left."""
    every = tuple(found)
    return tuple(change for change in every if not change.derived) or every


def of_model(found: Iterable[Change], model: str) -> tuple[Change, ...]:
    """The changes of one model's own fields."""
    return tuple(change for change in found if change.path[:2] == ("models", model))


def between(old: Plan, new: Plan, loaded: Loaded) -> tuple[Change, ...]:
    """Differences of two plans of one profile; `loaded` is the stack behind `new`."""
    return changes(data(old), data(new), loaded, new.profile)
