"""The built-in layer, and the user's layers stacked over it.

Owns builtin.yaml (nine profiles, eleven roles, defaults, roots) and the rules of what a stack takes over from it.
Works on trees: built-in values keep spans of the file `<built-in>`. How one layer lies over another is `layering`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from imageworks.diagnostics.model import Diagnostic, Fix, Label, Span
from imageworks.model.layering import lay, split
from imageworks.model.loaded import BUILT_IN
from imageworks.source.parse import parse
from imageworks.source.text import SourceFile
from imageworks.source.tree import Entry, MapNode, Node, ScalarNode, SeqNode

LOCAL = "stack.local.yaml"
"""The machine's own layer, beside the stack."""
LAST_RESORT = "development"


@cache
def built_in() -> tuple[SourceFile, MapNode]:
    """The text and tree of builtin.yaml."""
    source = SourceFile(BUILT_IN, Path(__file__).with_name("builtin.yaml").read_text("utf-8"))
    root = parse(source).root
    if root is None:
        raise RuntimeError("builtin.yaml of this installation is damaged")
    return source, root


def stacked(layers: Sequence[MapNode], name: str) -> tuple[MapNode, tuple[Diagnostic, ...]]:
    """The built-in layer with `layers` over it, lowest first; `name` is the stack's where no layer gives one."""
    root, about = _ground(layers, name)
    found = [*about]
    for layer in layers:
        root, told = lay(root, layer)
        found += told
    return _without_unknown_profiles(root), tuple(found)


def named(layers: Sequence[MapNode], section: str) -> Mapping[str, Entry]:
    """The names that `layers` write under `section` themselves, each with its last entry."""
    return {
        name: entry
        for layer in layers
        for key in (section, f"{section}=")
        for name, entry in _map(layer, key).entries.items()
        if not split(name)[1] or split(name)[1] == "="
    }


def _ground(layers: Sequence[MapNode], name: str) -> tuple[MapNode, tuple[Diagnostic, ...]]:
    """The part of the built-in layer that counts for `layers`.

    A profile with `match` is declared, one without adjusts the built-in of its name. Once one is declared, the
    built-in ones are gone, all but `development`; adjusting one of those is IW212.
    """
    _, base = built_in()
    built = _map(base, "profiles").entries
    own = [named((layer,), "profiles") for layer in layers]
    declared = {name: entry.key for entries in own for name, entry in entries.items() if _declares(entry)}
    left = {each: entry for each, entry in built.items() if each not in declared and each != LAST_RESORT}
    adjusted = {each: entry.key for entries in own for each, entry in entries.items() if each in left}
    gone = {each for each in built if each in declared or (declared and each in left and each not in adjusted)}
    kept = {each: entry for each, entry in built.items() if each not in gone}
    entries = dict(base.entries)
    entries["name"] = entries["name"].with_value(ScalarNode(name, plain=False, span=entries["name"].value.span))
    entries["profiles"] = entries["profiles"].with_value(MapNode(kept, base.entries["profiles"].value.span))
    found = [_left_out(each, key, declared[min(declared)]) for each, key in adjusted.items()] if declared else []
    return MapNode(entries, base.span), tuple(found)


def _declares(entry: Entry) -> bool:
    return isinstance(entry.value, MapNode) and any(split(key)[0] == "match" for key in entry.value.entries)


def _map(node: MapNode, key: str) -> MapNode:
    value = node.get(key)
    return value if isinstance(value, MapNode) else MapNode({}, node.span)


def _left_out(name: str, key: Span, declared: Span) -> Diagnostic:
    return Diagnostic(
        "IW212",
        f"`{name}` adjusts a profile that this stack leaves out",
        Label(key, "without `match` it adjusts the built-in one"),
        secondary=(Label(declared, "declares a profile: only declared ones count from here on"),),
        notes=(f"a stack that declares profiles has exactly those, and {LAST_RESORT}",),
        fixes=(Fix(f"give {name} a `match:`, or remove it"),),
    )


def _without_unknown_profiles(root: MapNode) -> MapNode:
    """Built-in roles may be missing on built-in profiles; those that this stack has not are forgotten."""
    roles, known = root.get("roles"), frozenset(_map(root, "profiles").entries)
    if not isinstance(roles, MapNode):
        return root
    entries = {name: entry.with_value(_trimmed(entry.value, known)) for name, entry in roles.entries.items()}
    whole = root.entries["roles"].with_value(MapNode(entries, roles.span))
    return MapNode({**root.entries, "roles": whole}, root.span)


def _trimmed(role: Node, known: frozenset[str]) -> Node:
    missing = role.entries.get("may_be_missing_on") if isinstance(role, MapNode) else None
    if missing is None or not isinstance(missing.value, SeqNode) or not isinstance(role, MapNode):
        return role
    kept = tuple(item for item in missing.value.items if not _unknown_built_in(item, known))
    if len(kept) == len(missing.value.items):
        return role
    trimmed = missing.with_value(SeqNode(kept, missing.value.span))
    return MapNode({**role.entries, "may_be_missing_on": trimmed}, role.span)


def _unknown_built_in(item: Node, known: frozenset[str]) -> bool:
    return isinstance(item, ScalarNode) and item.span.file == BUILT_IN and item.text not in known
