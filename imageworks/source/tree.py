"""The syntax tree: maps, lists and texts, each with its span.

Owns the shape that everything between the YAML parser and the typed stack works on. A scalar keeps its text and
whether it was plain; it has no type yet. Holds no judgement and no parser.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from imageworks.diagnostics.model import Span
from imageworks.values import dataclass

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """A text; `plain` when it stood without quotes (so an empty plain one is an empty value)."""

    text: str
    plain: bool
    span: Span


@dataclass(frozen=True, slots=True)
class BrokenNode:
    """A value that was refused already; later stages keep silent about it."""

    span: Span


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a map with its value. `shadowed` are the entries of lower layers that it stands over, nearest first."""

    key: Span
    value: Node
    shadowed: tuple[Entry, ...] = ()

    def with_value(self, value: Node) -> Entry:
        """The same key with another value."""
        return self if value is self.value else Entry(self.key, value, self.shadowed)

    def with_shadowed(self, shadowed: tuple[Entry, ...]) -> Entry:
        """The same entry over others."""
        return Entry(self.key, self.value, shadowed)


@dataclass(frozen=True, slots=True)
class MapNode:
    """A map in the order of the file, each key once."""

    entries: Mapping[str, Entry]
    span: Span

    def get(self, key: str) -> Node | None:
        """The value of `key`, or None."""
        entry = self.entries.get(key)
        return None if entry is None else entry.value


@dataclass(frozen=True, slots=True)
class SeqNode:
    """A list."""

    items: tuple[Node, ...]
    span: Span


Node = MapNode | SeqNode | ScalarNode | BrokenNode


def child(node: Node | None, part: str | int) -> Node | None:
    """The value under a key or index, or None when there is none."""
    if isinstance(node, MapNode) and isinstance(part, str):
        return node.get(part)
    if isinstance(node, SeqNode) and isinstance(part, int) and 0 <= part < len(node.items):
        return node.items[part]
    return None


def at(node: Node | None, *path: str | int) -> Node | None:
    """The value at `path`, or None."""
    for part in path:
        node = child(node, part)
    return node


def walk(node: Node, path: Path = (), key: Span | None = None) -> Iterator[tuple[Path, Span | None, Node]]:
    """Every value below and including `node`, parents first, with its path and the span of its key."""
    yield path, key, node
    if isinstance(node, MapNode):
        for name, entry in node.entries.items():
            yield from walk(entry.value, (*path, name), entry.key)
    elif isinstance(node, SeqNode):
        for index, item in enumerate(node.items):
            yield from walk(item, (*path, index))
