"""Models that a person keeps apart: `coexist.never`, which holds in both directions.

Owns the meaning of the names there: a model, or every member of a group. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from imageworks.model.stack import Stack


def never_with(stack: Stack) -> Mapping[str, tuple[str, ...]]:
    """For each model that is kept apart from any: the models that are never loaded beside it, by name."""
    found: dict[str, list[str]] = {}
    for one, other in pairs(stack):
        found.setdefault(one, []).append(other)
        found.setdefault(other, []).append(one)
    return {name: tuple(sorted(others)) for name, others in found.items()}


def pairs(stack: Stack) -> tuple[tuple[str, str], ...]:
    """Every pair that is kept apart, each once, by name."""
    found = {
        (min(name, other), max(name, other)) for name in stack.models for other in _named(stack, name) if other != name
    }
    return tuple(sorted(found))


def _named(stack: Stack, model_id: str) -> Iterator[str]:
    coexist = stack.models[model_id].coexist
    for name in coexist.never if coexist else ():
        yield from stack.groups[name].models if name in stack.groups and name not in stack.models else (name,)
