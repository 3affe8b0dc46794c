from __future__ import annotations

from imageworks.source.overlay import overlay
from imageworks.source.parse import parse
from imageworks.source.text import SourceFile
from imageworks.source.tree import MapNode, Node, ScalarNode, SeqNode, at


def tree(text: str, name: str = "s") -> MapNode:
    root = parse(SourceFile(name, text)).root
    assert root is not None
    return root


def plain(node: Node | None) -> object:
    if isinstance(node, MapNode):
        return {key: plain(entry.value) for key, entry in node.entries.items()}
    if isinstance(node, SeqNode):
        return [plain(item) for item in node.items]
    return node.text if isinstance(node, ScalarNode) else None


def test_maps_merge_key_by_key_and_the_rest_is_replaced() -> None:
    merged = overlay(tree("a: {x: 1, y: {p: 1}}\nb: [1, 2]\nc: 1"), tree("a: {y: {q: 2}}\nb: [3]\nd: 4"))
    assert plain(merged) == {"a": {"x": "1", "y": {"p": "1", "q": "2"}}, "b": ["3"], "c": "1", "d": "4"}


def test_a_map_and_a_scalar_do_not_merge() -> None:
    assert plain(overlay(tree("a: {x: 1}"), tree("a: 2"))) == {"a": "2"}
    assert plain(overlay(tree("a: 2"), tree("a: {x: 1}"))) == {"a": {"x": "1"}}


def test_values_keep_the_file_they_came_from() -> None:
    merged = overlay(tree("a: {x: 1, y: 2}", "low"), tree("a: {y: 3}", "high"))
    found = {key: node.span.file for key in ("x", "y") if (node := at(merged, "a", key)) is not None}
    assert found == {"x": "low", "y": "high"}
