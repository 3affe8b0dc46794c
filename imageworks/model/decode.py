"""Tree -> typed stack.

Owns the hand-over of the tree to pydantic, and the table of places that later stages speak through. Values go over
as `Written`, so that the field's type resolves them; what pydantic refuses is told by `findings`. Every mistake of
one file is found in one run. Checks no reference between names: that is `names`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from imageworks.diagnostics.model import Diagnostic, Fix, Label
from imageworks.model.findings import tell_all
from imageworks.model.layers import LOCAL
from imageworks.model.loaded import Path, Place
from imageworks.model.stack import Stack
from imageworks.model.written import Written
from imageworks.source.tree import BrokenNode, MapNode, Node, ScalarNode, SeqNode, at, walk


class Refused:
    """Stands for a value that has its finding already; whatever pydantic says about it is dropped."""


_REFUSED = Refused()


def values(node: Node) -> Any:
    """Plain Python values of a tree: dicts, lists and `Written` texts."""
    if isinstance(node, MapNode):
        return {key: values(entry.value) for key, entry in node.entries.items()}
    if isinstance(node, SeqNode):
        return [values(item) for item in node.items]
    if isinstance(node, ScalarNode):
        return Written(node.text, plain=node.plain, own=node.span.file == LOCAL)
    return _REFUSED


def places(root: MapNode) -> Mapping[Path, Place]:
    """Where every value of the tree stands."""
    return {path: Place(key, node.span) for path, key, node in walk(root)}


def origins(root: MapNode) -> Mapping[Path, tuple[Place, ...]]:
    """What each value stands over in lower layers, nearest first; only paths with something below."""
    return dict(_origins(root, ()))


def _origins(node: Node, path: Path) -> Iterator[tuple[Path, tuple[Place, ...]]]:
    if isinstance(node, MapNode):
        for name, entry in node.entries.items():
            if entry.shadowed:
                yield (*path, name), tuple(Place(below.key, below.value.span) for below in entry.shadowed)
            yield from _origins(entry.value, (*path, name))


def decode(root: MapNode, cut: frozenset[str] = frozenset()) -> tuple[Stack | None, tuple[Diagnostic, ...]]:
    """The typed stack of `root`, or what is wrong with it. `cut` names sections that could not be read."""
    try:
        return Stack.model_validate(values(root)), ()
    except ValidationError as error:
        found = tell_all(root, error.errors(include_url=False))
        return None, tuple(finding for finding in found if not _about_cut(finding, cut))


def _about_cut(finding: Diagnostic, cut: frozenset[str]) -> bool:
    return finding.code in {"IW202", "IW210"} and any(finding.message == f"`{name}` is missing" for name in cut)


def without_empty(root: MapNode) -> tuple[MapNode, tuple[Diagnostic, ...]]:
    """`root` with every empty value refused (IW209)."""
    found: list[Diagnostic] = []
    cleaned = _cleaned(root, root, (), found)
    return (cleaned if isinstance(cleaned, MapNode) else root), tuple(found)


def _cleaned(root: MapNode, node: Node, path: Path, found: list[Diagnostic]) -> Node:
    if isinstance(node, MapNode):
        entries = {}
        for key, entry in node.entries.items():
            if _is_empty(entry.value):
                found.append(_empty(root, (*path, key), Label(entry.key, "nothing stands after it")))
                entries[key] = entry.with_value(BrokenNode(entry.key))
            else:
                entries[key] = entry.with_value(_cleaned(root, entry.value, (*path, key), found))
        return MapNode(entries, node.span)
    if isinstance(node, SeqNode):
        items = tuple(_cleaned(root, item, (*path, index), found) for index, item in enumerate(node.items))
        return SeqNode(items, node.span)
    if _is_empty(node):
        found.append(_empty(root, path, Label(node.span, "nothing stands here")))
        return BrokenNode(node.span)
    return node


def _is_empty(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.plain and node.text in {"", "null", "~"}


def _empty(root: MapNode, path: Path, label: Label) -> Diagnostic:
    name = path[-1]
    default = at(root, "defaults", name) if len(path) == 3 and path[0] == "models" else None  # noqa: PLR2004 - models.M.key
    told = f" {default.text}" if isinstance(default, ScalarNode) and default.text else ""
    message = f"`{name}` is empty" if isinstance(name, str) else "an empty list item"
    return Diagnostic(
        "IW209", message, label, fixes=(Fix(f"remove the line to get the default{told}, or write a value"),)
    )
