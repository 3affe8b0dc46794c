"""Layers as they are written -> layers as they are stacked: each profile's `override` taken out, to lie above all.

Owns what may stand in an override, and the order of all layers for one profile: files, the profile's overrides in
them, then the machine's own layer and its override. Lays nothing itself: that is `layers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from imageworks.diagnostics.model import Diagnostic, Fix, Label
from imageworks.model.layering import split
from imageworks.source.tree import Entry, MapNode
from imageworks.values import dataclass

REFUSED = ("version", "name", "include", "variables", "roots", "profiles")
"""One value for the whole stack, or (profiles) what the override stands in."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One file's tree without its overrides, and the overrides by profile."""

    root: MapNode
    overrides: Mapping[str, MapNode]


def taken_out(root: MapNode) -> tuple[Layer, tuple[Diagnostic, ...]]:
    """`root` as a layer, and what must not stand in its overrides."""
    overrides: dict[str, MapNode] = {}
    found: list[Diagnostic] = []
    sections = {
        key: entry.with_value(_without(entry.value, overrides, found))
        for key, entry in root.entries.items()
        if split(key)[0] == "profiles" and isinstance(entry.value, MapNode)
    }
    return Layer(MapNode({**root.entries, **sections}, root.span) if overrides else root, overrides), tuple(found)


def _without(profiles: MapNode, overrides: dict[str, MapNode], found: list[Diagnostic]) -> MapNode:
    entries: dict[str, Entry] = {}
    for name, entry in profiles.entries.items():
        own = entry.value.get("override") if isinstance(entry.value, MapNode) else None
        if isinstance(own, MapNode) and isinstance(entry.value, MapNode):
            found += _misplaced(own)
            overrides[split(name)[0]] = MapNode(dict(_allowed(own)), own.span)
            rest = {key: below for key, below in entry.value.entries.items() if key != "override"}
            entry = entry.with_value(MapNode(rest, entry.value.span))  # noqa: PLW2901 - the entry without its override
        entries[name] = entry
    return MapNode(entries, profiles.span)


def _allowed(override: MapNode) -> Iterator[tuple[str, Entry]]:
    yield from ((key, entry) for key, entry in override.entries.items() if split(key)[0] not in REFUSED)


def _misplaced(override: MapNode) -> Iterator[Diagnostic]:
    for key, entry in override.entries.items():
        name = split(key)[0]
        if name in REFUSED:
            own = name == "profiles"
            label = "a profile's own values stand beside `override`" if own else "one for the whole stack"
            fix = Fix("move its keys up, beside `override:`" if own else "write it at the top level")
            message = f"`{name}` does not belong in an override"
            yield Diagnostic("IW201", message, Label(entry.key, label), fixes=(fix,))


def order(files: Sequence[Layer], local: Sequence[Layer], profile: str | None = None) -> tuple[MapNode, ...]:
    """The trees to stack, lowest first; with `profile` its overrides too."""
    trees: list[MapNode] = []
    for group in (files, local):
        trees += [layer.root for layer in group]
        trees += [layer.overrides[profile] for layer in group if profile is not None and profile in layer.overrides]
    return tuple(trees)
