"""The built-in layer below the user's file.

Owns builtin.yaml (nine profiles, eleven roles, defaults, roots) and the rules of what a stack takes over from it.
Works on trees: built-in values keep spans of the file `<built-in>`.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from imageworks.diagnostics.model import Diagnostic, Fix, Label, Span
from imageworks.source.overlay import overlay
from imageworks.source.parse import parse
from imageworks.source.text import SourceFile
from imageworks.source.tree import Entry, MapNode, Node, ScalarNode, SeqNode

BUILT_IN = "<built-in>"
LAST_RESORT = "development"


@cache
def built_in() -> tuple[SourceFile, MapNode]:
    """The text and tree of builtin.yaml."""
    source = SourceFile(BUILT_IN, files("imageworks.model").joinpath("builtin.yaml").read_text("utf-8"))
    root = parse(source).root
    if root is None:
        raise RuntimeError("builtin.yaml of this installation is damaged")
    return source, root


def over_built_in(user: MapNode, name: str) -> tuple[MapNode, tuple[Diagnostic, ...]]:
    """`user` laid over the built-in layer; `name` is the stack's name where the file gives none."""
    _, base = built_in()
    entries = dict(base.entries)
    entries["name"] = Entry(entries["name"].key, ScalarNode(name, plain=False, span=entries["name"].value.span))
    merged = overlay(MapNode(entries, base.span), user)
    if not isinstance(merged, MapNode):
        raise TypeError("two maps make a map")
    own = user.entries.get("profiles")
    if own is None or not isinstance(own.value, MapNode):
        return _without_unknown_profiles(merged), ()
    profiles, found = _profiles(_map(base, "profiles"), own.value)
    complete = MapNode({**merged.entries, "profiles": Entry(own.key, profiles)}, merged.span)
    return _without_unknown_profiles(complete), found


def _map(node: MapNode, key: str) -> MapNode:
    value = node.get(key)
    return value if isinstance(value, MapNode) else MapNode({}, node.span)


def _profiles(base: MapNode, own: MapNode) -> tuple[MapNode, tuple[Diagnostic, ...]]:
    """The profiles of a stack: an entry with `match` declares one, an entry without adjusts the built-in of its name.

    Once one is declared, the built-in ones are gone, all but `development`; adjusting one of those is IW212.
    """
    declared = {
        name
        for name, entry in own.entries.items()
        if isinstance(entry.value, MapNode) and "match" in entry.value.entries
    }
    result = {name: entry for name, entry in base.entries.items() if not declared or name == LAST_RESORT}
    found: list[Diagnostic] = []
    for name, entry in own.entries.items():
        built = base.entries.get(name)
        if name in declared or built is None:
            result[name] = entry
            continue
        if name not in result:
            found.append(_left_out(name, entry.key, own.entries[min(declared)].key))
        result[name] = Entry(entry.key, overlay(built.value, entry.value))
    return MapNode(result, own.span), tuple(found)


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
    roles, known = _map(root, "roles"), _map(root, "profiles").entries
    entries = {name: Entry(entry.key, _trimmed(entry.value, frozenset(known))) for name, entry in roles.entries.items()}
    if "roles" not in root.entries or not isinstance(root.get("roles"), MapNode):
        return root
    return MapNode({**root.entries, "roles": Entry(root.entries["roles"].key, MapNode(entries, roles.span))}, root.span)


def _trimmed(role: Node, known: frozenset[str]) -> Node:
    missing = role.entries.get("may_be_missing_on") if isinstance(role, MapNode) else None
    if (
        missing is None
        or missing.value.span.file != BUILT_IN
        or not isinstance(missing.value, SeqNode)
        or not isinstance(role, MapNode)
    ):
        return role
    kept = tuple(item for item in missing.value.items if isinstance(item, ScalarNode) and item.text in known)
    return MapNode(
        {**role.entries, "may_be_missing_on": Entry(missing.key, SeqNode(kept, missing.value.span))}, role.span
    )
