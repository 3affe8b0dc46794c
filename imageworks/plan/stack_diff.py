"""What differs between two stacks: the keys a person wrote, and what that does on each profile.

Owns the comparison of typed stacks (so `300s` and `5m` are equal) shown in the written words, and the short list of
effects worth telling: where a model runs, how long its context is, what it takes, who answers a role. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from imageworks.diagnostics.model import Span
from imageworks.model.loaded import BUILT_IN, Loaded, Place
from imageworks.plan.diff import Path, compare
from imageworks.plan.ir import Plan, PlannedModel
from imageworks.plan.text import size_word
from imageworks.values import dataclass

_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Side:
    """One of two stacks: its typed values and the texts that their spans point into."""

    loaded: Loaded
    texts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """One key. `old` and `new` are the written words (or the default's value), None where there is none.

    `at_old` and `at_new` are None for a value that nobody wrote.
    """

    path: Path
    old: str | None
    new: str | None
    at_old: Span | None
    at_new: Span | None


@dataclass(frozen=True, slots=True)
class Effect:
    """One consequence on a profile; `what` is dotted, as in `models.qwen.context` or `roles.caption`."""

    what: str
    old: str | None
    new: str | None


def differences(old: Side, new: Side) -> tuple[Difference, ...]:
    """Keys whose values differ, sorted by path."""
    found = compare(old.loaded.stack.model_dump(), new.loaded.stack.model_dump())
    return tuple(_difference(old, new, path, before, after) for path, before, after in found)


def _difference(old: Side, new: Side, path: Path, before: object, after: object) -> Difference:
    at_old, at_new = _written(old, path), _written(new, path)
    return Difference(
        path=path,
        old=_words(old, at_old, before),
        new=_words(new, at_new, after),
        at_old=(at_old.key or at_old.value) if at_old else None,
        at_new=(at_new.key or at_new.value) if at_new else None,
    )


def _written(side: Side, path: Path) -> Place | None:
    place = side.loaded.places.get(path)
    return None if place is None or place.value.file == BUILT_IN else place


def _words(side: Side, place: Place | None, value: object) -> str | None:
    if place is None:
        return None if value is None else f"{_short(str(value))} (default)"
    at = place.value
    return _short(side.texts[at.file][at.start : at.end])


def _short(text: str) -> str:
    """One line, cut where it gets long."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def effects(old: Plan, new: Plan) -> tuple[Effect, ...]:
    """What the difference does on one profile."""
    before, after = dict(_summary(old)), dict(_summary(new))
    names = sorted(before.keys() | after.keys())
    found = (Effect(name, before.get(name), after.get(name)) for name in names)
    gone = {f"models.{name}." for name in _ids(old) ^ _ids(new)}
    return tuple(
        effect
        for effect in found
        if effect.old != effect.new and not any(effect.what.startswith(prefix) for prefix in gone)
    )


def _ids(plan: Plan) -> frozenset[str]:
    return frozenset(model.id for model in plan.models)


def _summary(plan: Plan) -> Iterator[tuple[str, str]]:
    for model in plan.models:
        yield f"models.{model.id}", _where(model)
        yield f"models.{model.id}.context", str(model.context)
        yield f"models.{model.id}.concurrency", str(model.concurrency)
        yield f"models.{model.id}.memory", size_word(model.memory.total)
        if model.port is not None:
            yield f"models.{model.id}.port", str(model.port)
    for left in plan.unplaced:
        yield f"models.{left.id}", f"left out ({left.code})"
    for role in plan.roles:
        if role.candidates:
            yield f"roles.{role.name}", ", ".join(candidate.model for candidate in role.candidates)


def _where(model: PlannedModel) -> str:
    slots = ", ".join(str(slot) for slot in model.placement.slots)
    return f"GPU {slots}" if model.placement.kind == "gpu" else {"cpu": "CPU", "remote": "remote"}[model.placement.kind]
