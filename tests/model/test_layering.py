from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.diagnostics.model import Diagnostic, Span
from imageworks.model.layering import lay, split
from imageworks.source.parse import parse
from imageworks.source.text import SourceFile
from imageworks.source.tree import BrokenNode, Entry, MapNode, Node, ScalarNode, SeqNode

SPAN = Span("s", 0, 0, 1, 1, 1, 1)
NAMES = st.sampled_from("abcd")
VALUES = st.recursive(
    st.text("xyz", max_size=2) | st.lists(st.text("xyz", max_size=2), max_size=2),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3),
)
MAPS = st.dictionaries(NAMES, VALUES, max_size=4)


def node(value: object) -> Node:
    if isinstance(value, dict):
        return MapNode({key: Entry(SPAN, node(item)) for key, item in value.items()}, SPAN)
    if isinstance(value, list):
        return SeqNode(tuple(node(item) for item in value), SPAN)
    return ScalarNode(str(value), plain=True, span=SPAN)


def tree(value: dict[str, object]) -> MapNode:
    made = node(value)
    assert isinstance(made, MapNode)
    return made


def plain(value: Node | None) -> object:
    if isinstance(value, MapNode):
        return {key: plain(entry.value) for key, entry in value.entries.items()}
    if isinstance(value, SeqNode):
        return [plain(item) for item in value.items]
    return value.text if isinstance(value, ScalarNode) else None


def read(text: str, name: str) -> MapNode:
    root = parse(SourceFile(name, text)).root
    assert root is not None
    return root


def laid(below: str, above: str) -> tuple[object, tuple[Diagnostic, ...]]:
    root, found = lay(read(below, "low"), read(above, "high"))
    return plain(root), found


def merged(below: dict[str, object], above: dict[str, object]) -> dict[str, object]:
    """The merge rule, as the language states it."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


@given(below=MAPS, above=MAPS)
def test_maps_merge_key_by_key_and_all_else_is_replaced(below: dict[str, object], above: dict[str, object]) -> None:
    root, found = lay(tree(below), tree(above))
    assert plain(root) == merged(below, above)
    assert found == ()


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [
        ("a: [x]", "a+: [y, z]", {"a": ["x", "y", "z"]}),
        ("a: [x, y]", "a-: [x]", {"a": ["y"]}),
        ("a: {x: 1, y: 2}", "a-: [x]", {"a": {"y": "2"}}),
        ("a: {x: 1, y: 2}", "a=: {z: 3}", {"a": {"z": "3"}}),
        ("a: [x]", "a=: [y]", {"a": ["y"]}),
        ("m: {a: {x: 1, y: 2}}", "m-: [a]\nm: {b: {x: 1}}", {"m": {"b": {"x": "1"}}}),
        ("m: {a: {x: 1, y: 2}}", "m: {a: {x: 3}}\nm-: [a]", {"m": {"a": {"x": "3"}}}),
        ("a: [x, y]", "a+: [z]\na-: [x]", {"a": ["y", "z"]}),
        ("a: {b: {c: [x]}}", "a: {b: {c+: [y]}}", {"a": {"b": {"c": ["x", "y"]}}}),
    ],
)
def test_suffixes_append_remove_and_replace(below: str, above: str, expected: object) -> None:
    assert laid(below, above) == (expected, ())


@pytest.mark.parametrize(
    ("below", "above", "code", "column", "says"),
    [
        ("a: [x]", "b+: [y]", "IW313", 1, "no lower layer"),
        ("alias: [x]", "alais+: [y]", "IW313", 1, "did you mean `alias+`?"),
        ("b: 1", "a: {b=: {c: 1}}", "IW313", 5, "no lower layer"),
        ("a: {x: 1}", "a+: [y]", "IW313", 1, "maps merge without a suffix"),
        ("a: 1", "a-: [y]", "IW313", 1, "a single value"),
        ("a: [x]", "a+: y", "IW313", 5, "a+: […]"),
        ("a: [x]", "a-: [y]", "IW312", 6, "nothing of this name"),
        ("m: {pixtral-12b-q4: {}}", "m-: [pixtral-12b]", "IW312", 6, "did you mean `pixtral-12b-q4`?"),
    ],
)
def test_a_suffix_that_makes_no_sense_is_told_and_changes_nothing(
    below: str, above: str, code: str, column: int, says: str
) -> None:
    root, (found,) = laid(below, above)
    assert found.primary is not None
    assert (found.code, found.primary.span.file, found.primary.span.column) == (code, "high", column)
    assert says in found.primary.text
    original = plain(read(below, "low"))
    assert isinstance(original, dict)
    assert {
        key: value for key, value in original.items() if isinstance(root, dict) and root.get(key) == value
    } == original


def test_every_value_remembers_what_it_stands_over() -> None:
    low, mid, high = read("a: {b: 1}", "low"), read("a: {b: 2}", "mid"), read("a: {b: 3}", "high")
    root = lay(lay(low, mid)[0], high)[0]
    a = root.entries["a"].value
    assert isinstance(a, MapNode)
    entry = a.entries["b"]
    assert (entry.value.span.file, [below.value.span.file for below in entry.shadowed]) == ("high", ["mid", "low"])


def test_an_appended_list_remembers_the_shorter_one() -> None:
    root = lay(read("a: [x]", "low"), read("a+: [y]", "high"))[0]
    entry = root.entries["a"]
    assert isinstance(entry.value, SeqNode)
    assert [item.span.file for item in entry.value.items] == ["low", "high"]
    assert [below.value.span.file for below in entry.shadowed] == ["low"]


@given(st.text(max_size=4))
def test_a_key_is_its_name_and_its_suffix(key: str) -> None:
    name, sign = split(key)
    assert name + sign == key
    assert sign in {"", "+", "-", "="}


@pytest.mark.parametrize("sign", ["+", "-", "="])
def test_a_value_that_could_not_be_read_changes_nothing_and_is_not_told_twice(sign: str) -> None:
    above = MapNode({f"a{sign}": Entry(SPAN, BrokenNode(SPAN))}, SPAN)
    root, found = lay(tree({"a": ["x"]}), above)
    assert (plain(root), found) == ({"a": ["x"]}, ())
