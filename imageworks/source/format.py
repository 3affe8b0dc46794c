"""A YAML text in its one layout, comments untouched.

Owns what `imageworks fmt` may change: two blanks for each level of blocks, no blanks at line ends, at most one empty
line in a row, one line end at the end, lines that end with a line feed. Within a line nothing moves, so columns that
a person aligned stay aligned. The new text must read as the same tree, or it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from imageworks.diagnostics.model import Diagnostic
from imageworks.source.parse import parse
from imageworks.source.text import SourceFile
from imageworks.source.tree import BrokenNode, MapNode, Node, ScalarNode, SeqNode, walk
from imageworks.values import dataclass

STEP = 2


@dataclass(frozen=True, slots=True)
class Formatted:
    """The new text; None with findings when the old one cannot be read, without any when its meaning would change."""

    text: str | None
    diagnostics: tuple[Diagnostic, ...] = ()


def formatted(source: SourceFile) -> Formatted:
    """Lay out `source` anew."""
    parsed = parse(source)
    if parsed.root is None or parsed.diagnostics:
        return Formatted(None, parsed.diagnostics)
    text = _laid_out(source, parsed.root)
    again = parse(SourceFile(source.name, text))
    same = again.root is not None and not again.diagnostics and _meaning(again.root) == _meaning(parsed.root)
    return Formatted(text if same else None)


def _meaning(root: MapNode) -> list[tuple[object, ...]]:
    """Everything but places."""
    return [
        (path, (node.text, node.plain) if isinstance(node, ScalarNode) else type(node).__name__)
        for path, _, node in walk(root)
    ]


def _laid_out(source: SourceFile, root: MapNode) -> str:
    anchors = dict(_map(source, root, 0, {}))
    inside = _inside(root)
    lines = source.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    moved = _moves(lines, anchors, inside)
    made: list[str] = []
    for number, line in enumerate(lines, 1):
        kept = line if number in inside else line.rstrip(" \t")
        made.append(_indented(kept, moved[number]) if kept.strip() else kept)
    return "\n".join(_without_gaps(made, inside)).rstrip("\n") + "\n"


def _inside(root: MapNode) -> frozenset[int]:
    """Lines on which a text that began further up goes on."""
    spans = [node.span for _, _, node in walk(root) if isinstance(node, ScalarNode)]
    ends = [(span.line, span.end_line - (span.end_column == 1)) for span in spans]
    return frozenset(line for first, last in ends for line in range(first + 1, last + 1))


def _moves(lines: list[str], anchors: Mapping[int, int], inside: frozenset[int]) -> Mapping[int, int]:
    """How far each line moves: as its own first word, as the line that it continues, or as the block it comments."""
    moved: dict[int, int] = {}
    last = 0
    for number, line in enumerate(lines, 1):
        if number in anchors:
            last = anchors[number] - _indent(line)
        elif number not in inside and line.lstrip().startswith("#"):
            moved[number] = _of_comment(lines, anchors, number, last)
            continue
        moved[number] = last
    return moved


def _of_comment(lines: list[str], anchors: Mapping[int, int], number: int, last: int) -> int:
    """A comment that is aligned with the next block line belongs to it, any other to what stands above."""
    below = next((at for at in range(number + 1, len(lines) + 1) if at in anchors), None)
    if below is not None and _indent(lines[below - 1]) == _indent(lines[number - 1]):
        return anchors[below] - _indent(lines[below - 1])
    return last


def _indented(line: str, move: int) -> str:
    if move >= 0:
        return " " * move + line
    return line[min(-move, _indent(line)) :]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _without_gaps(lines: list[str], inside: frozenset[int]) -> Iterator[str]:
    """Without empty lines at the top, and without a second one in a row outside of texts."""
    before = ""
    for number, line in enumerate(lines, 1):
        if line or before or number in inside:
            yield line
        before = line


def _is_flow(source: SourceFile, node: Node) -> bool:
    return source.text[node.span.start : node.span.start + 1] in {"{", "["}


def _map(source: SourceFile, node: MapNode, column: int, parents: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """(line, new indent) of every line that begins with a key of `node` or of a block below it."""
    first = min((entry.key.line for entry in node.entries.values()), default=0)
    for entry in node.entries.values():
        if entry.key.line != first or first not in parents:
            yield entry.key.line, column
        if entry.value.span.line > entry.key.line:
            yield from _block(source, entry.value, column + STEP, {})


def _block(source: SourceFile, node: Node, column: int, parents: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    if isinstance(node, ScalarNode | BrokenNode) or _is_flow(source, node):
        return
    if isinstance(node, MapNode):
        yield from _map(source, node, column, parents)
    elif isinstance(node, SeqNode):
        yield from _list(source, node, column, parents)


def _list(source: SourceFile, node: SeqNode, column: int, parents: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """The lines of a block list: its dashes at `column`, a block right behind a dash as far from it as before."""
    dash = node.span.column
    for item in node.items:
        line = _dash_line(source, item, dash)
        if line not in parents:
            yield line, column
        if item.span.line == line:
            yield from _block(source, item, column + item.span.column - dash, {line: column})
        else:
            yield from _block(source, item, column + STEP, {})


def _dash_line(source: SourceFile, item: Node, dash: int) -> int:
    """The line of the item's `-`: its own, or one further up where the item begins on a later line."""
    for line in range(item.span.line, 0, -1):
        start, end = source.line_bounds(line)
        if source.text[start + dash - 1 : min(start + dash, end)] == "-" and (
            line == item.span.line or not source.text[start : start + dash - 1].strip()
        ):
            return line
    return item.span.line
