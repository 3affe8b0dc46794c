"""The files of a stack: the one that is named, and what it includes, lowest first.

Owns `include:`: paths relative to the file that names them, each file once however often it is named, missing and
circling ones (IW310), and that files of which neither includes the other do not disagree (IW311). Reads through a
function it is given.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from itertools import combinations

from pydantic import ValidationError

from imageworks.diagnostics.model import Diagnostic, Fix, Label, Span
from imageworks.model.decode import values
from imageworks.model.findings import tell_all
from imageworks.model.layering import split
from imageworks.model.part import Part
from imageworks.model.scalars import RelativePath
from imageworks.source.tree import MapNode, Node, Path, ScalarNode, SeqNode
from imageworks.values import dataclass

DEEPEST = 40
Read = Callable[[str, Label | None], MapNode | None]
"""Tree of a file by its name; None when there is none, which is told. The label says who includes it."""


class Includes(Part):
    """The one key of a file that is looked at before its layers are laid over each other."""

    include: tuple[RelativePath, ...] = ()


@dataclass(frozen=True, slots=True)
class File:
    """One file with the names of all files that lie below it because it includes them."""

    name: str
    root: MapNode
    below: frozenset[str]


@dataclass(slots=True)
class Gathered:
    """The files read so far, lowest first, and what was found on the way."""

    read: Read
    files: dict[str, File] = field(default_factory=dict)
    found: list[Diagnostic] = field(default_factory=list)
    complete: bool = True

    def add(self, name: str) -> None:
        """Read `name` and everything it includes, and compare the new files with each other."""
        before = frozenset(self.files)
        self._visit(name, None, ())
        self.found += disagreements({key: file for key, file in self.files.items() if key not in before})

    def _visit(self, name: str, named: Label | None, way: tuple[str, ...]) -> frozenset[str]:
        """The names of `name` and all below it."""
        if name in self.files:
            return self.files[name].below | {name}
        root = self.read(name, named)
        if root is None:
            self.complete = False
            return frozenset({name})
        below: frozenset[str] = frozenset()
        for target, span in self._included(name, root):
            if target in (*way, name):
                self.found.append(
                    _circle((*way[way.index(target) :], name, target) if target in way else (name, target), span)
                )
                continue
            if len(way) >= DEEPEST:
                label = Label(span, f"included by {name}")
                self.found.append(Diagnostic("IW310", f"files include each other more than {DEEPEST} deep", label))
                continue
            below |= self._visit(target, Label(span, f"included by {name}"), (*way, name))
        entries = (
            root.entries if named is None else {key: entry for key, entry in root.entries.items() if key != "include"}
        )
        self.files[name] = File(name, MapNode(entries, root.span), below)
        return below | {name}

    def _included(self, name: str, root: MapNode) -> Iterator[tuple[str, Span]]:
        node = root.get("include")
        if node is None:
            return
        try:
            names = Includes.model_validate({"include": values(node)}).include
        except ValidationError as error:
            self.found += tell_all(root, error.errors(include_url=False), Includes)
            return
        for path, item in zip(names, node.items if isinstance(node, SeqNode) else (), strict=True):
            if "${" in path:
                self.found.append(_variable(item.span))
            else:
                yield posixpath.join(posixpath.dirname(name), path), item.span


def _variable(span: Span) -> Diagnostic:
    label = Label(span, "files are read before variables are known")
    return Diagnostic("IW315", "a variable cannot name an included file", label, fixes=(Fix("write the path"),))


def _circle(way: tuple[str, ...], span: Span) -> Diagnostic:
    label = Label(span, " -> ".join(way))
    return Diagnostic(
        "IW310", "files include each other in a circle", label, fixes=(Fix("remove one of the includes"),)
    )


def disagreements(files: Mapping[str, File]) -> Iterator[Diagnostic]:
    """Values that two files set differently though neither includes the other; the first in each place."""
    if len(files) < 2:  # noqa: PLR2004 - two files
        return
    written: dict[Path, list[tuple[File, Span, Node]]] = {}
    for file in files.values():
        for path, key, node in _settings(file.root, ()):
            written.setdefault(path, []).append((file, key, node))
    told: set[Path] = set()
    for path in sorted(written, key=len):
        if any(path[: len(above)] == above for above in told):
            continue
        for (one, first, low), (other, second, high) in combinations(written[path], 2):
            if one.name not in other.below and other.name not in one.below and not _agree(low, high):
                told.add(path)
                yield _disagree(path, (one.name, first, low), (other.name, second, high))
                break


def _settings(node: MapNode, path: Path) -> Iterator[tuple[Path, Span, Node]]:
    """Every key of a file by its path; a suffixed key that changes rather than adds counts at the path it changes."""
    for key, entry in node.entries.items():
        name, sign = split(key)
        if path == () and key in {"include", "version"}:
            continue
        if sign in {"+", "-"}:
            continue
        yield (*path, name), entry.key, entry.value
        if isinstance(entry.value, MapNode) and not sign:
            yield from _settings(entry.value, (*path, name))


def _agree(one: Node, other: Node) -> bool:
    if isinstance(one, MapNode) and isinstance(other, MapNode):
        return True  # their keys are compared
    return bool(values(one) == values(other))


def _disagree(path: Path, first: tuple[str, Span, Node], second: tuple[str, Span, Node]) -> Diagnostic:
    dotted = ".".join(map(str, path))
    return Diagnostic(
        "IW311",
        f"two included files disagree about {dotted}",
        Label(_spot(second), f"{_short(second[2])} in {second[0]}"),
        secondary=(Label(_spot(first), f"{_short(first[2])} in {first[0]}"),),
        notes=("neither file includes the other, so neither wins",),
        fixes=(Fix("keep one of them, or let one file include the other: the including one wins"),),
    )


def _spot(written: tuple[str, Span, Node]) -> Span:
    return written[2].span if isinstance(written[2], ScalarNode) else written[1]


def _short(node: Node) -> str:
    return node.text if isinstance(node, ScalarNode) else "another value"
