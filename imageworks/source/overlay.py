"""One layer over another: maps merge key by key, everything else is replaced.

Owns the merge rule of language.md section 6. Nodes keep their own spans, so a value always points into the layer
that it came from.
"""

from __future__ import annotations

from imageworks.source.tree import Entry, MapNode, Node


def overlay(below: Node | None, above: Node) -> Node:
    """`above` laid over `below`."""
    if not isinstance(below, MapNode) or not isinstance(above, MapNode):
        return above
    merged = dict(below.entries)
    for key, entry in above.entries.items():
        old = below.entries.get(key)
        merged[key] = Entry(entry.key, overlay(old.value if old else None, entry.value))
    return MapNode(merged, above.span)
