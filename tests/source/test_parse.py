from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imageworks.source.files import decode
from imageworks.source.parse import MOST_ROUNDS, Parsed, parse
from imageworks.source.text import SourceFile
from imageworks.source.tree import MapNode, ScalarNode, at, walk


def read(text: str) -> Parsed:
    return parse(SourceFile("s", text))


def codes(text: str) -> list[str]:
    return [finding.code for finding in read(text).diagnostics]


def scalar(text: str, *path: str | int) -> ScalarNode:
    node = at(read(text).root, *path)
    assert isinstance(node, ScalarNode)
    return node


PIECES = st.sampled_from(
    ["a", "b:", "é: ", "中", " ", "  ", "\n", "\n  ", "\t", "- ", "[", "]", "{", "}", ",", ": ", '"', "'", "|", ">", ">=1",
     "&x ", "*x", "!!str ", "<<: ", "? ", "#", "---\n", "%YAML 9", "\\", '"\\U', "@", "`", "~", "𝄞", "\u2028", "=", "\r"]
)  # fmt: skip


@given(st.one_of(st.lists(PIECES, max_size=25).map("".join), st.text(max_size=60)))
@example('a: "\\UFFFFFFFF"')
@example("%YAML 99999999999999999999.1\n---\na: 1")
@example("{" * 200)
@example("- " * 200)
@settings(max_examples=400, deadline=None)
def test_no_text_makes_the_parser_raise(text: str) -> None:
    parsed = read(text)
    assert parsed.root is not None or parsed.diagnostics
    for finding in parsed.diagnostics:
        assert finding.primary is not None
        assert 0 <= finding.primary.span.start <= finding.primary.span.end <= len(text)


@given(st.binary(max_size=80))
@settings(max_examples=150, deadline=None)
def test_no_bytes_make_the_front_raise(data: bytes) -> None:
    source, found = decode("s", data)
    assert (source is None) == bool(found)
    if source is not None:
        parse(source)


WORDS = st.text(alphabet=st.sampled_from("abcé中𝄞_-"), min_size=1, max_size=6).filter(
    lambda word: not word.startswith("-")
)
TREES = st.recursive(
    WORDS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=12,
)


def flow(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(flow, value)) + "]" if isinstance(value, list) else str(value)


def block(value: object, indent: str) -> str:
    if isinstance(value, dict) and value:
        return "".join(f"\n{indent}{key}:{block(item, indent + '  ')}" for key, item in value.items())
    if isinstance(value, list) and value:
        return "".join(f"\n{indent}- {flow(item)}" for item in value)
    return f" {flow(value)}"


@given(st.dictionaries(WORDS, TREES, min_size=1, max_size=4))
@settings(deadline=None)
def test_spans_lead_back_to_the_text(value: dict[str, object]) -> None:
    text = flow(value)
    parsed = read(text)
    assert parsed.root is not None
    assert not parsed.diagnostics
    for path, key, node in walk(parsed.root):
        assert key is None or text[key.start : key.end] == path[-1]
        assert text[node.span.start : node.span.end] == flow(_at(value, path))


@given(st.dictionaries(WORDS, TREES, min_size=1, max_size=4))
@settings(deadline=None)
def test_block_style_reads_the_same_and_a_map_ends_with_its_last_value(value: dict[str, object]) -> None:
    text = block(value, "").lstrip("\n")
    parsed = read(text)
    assert parsed.root is not None
    assert _values(parsed.root) == value
    for path, _, node in walk(parsed.root):
        if isinstance(node, ScalarNode):
            assert text[node.span.start : node.span.end] == _at(value, path)
        elif isinstance(node, MapNode) and node.entries:
            behind = node.span.end - max(entry.value.span.end for entry in node.entries.values())
            assert behind == int(text[node.span.start] == "{")


def _at(value: object, path: tuple[str | int, ...]) -> object:
    for part in path:
        value = value[part]  # type: ignore[index]  # the path was made from this value
    return value


def _values(node: object) -> object:
    if isinstance(node, MapNode):
        return {key: _values(entry.value) for key, entry in node.entries.items()}
    if isinstance(node, ScalarNode):
        return node.text
    return [_values(item) for item in getattr(node, "items", ())]


def test_text_keeps_what_was_written() -> None:
    text = "a: no\nb: 1.10\nc: 012\nd: 'no'\ne: |\n  two\n  lines\nf: >=\n"
    assert [scalar(text, key).text for key in "abcd"] == ["no", "1.10", "012", "no"]
    assert [scalar(text, key).plain for key in "abcde"] == [True, True, True, False, False]
    assert scalar(text, "e").text == "two\nlines\n"


def test_several_mistakes_are_found_in_one_run() -> None:
    text = 'a: {x: 1\nb: {v: >=15GiB}\nc:\n\td: 1\ne: "open\nf: {g: 1, g: 2}\nh: *x\n'
    found = [(finding.code, finding.primary.span.line) for finding in read(text).diagnostics if finding.primary]
    assert sorted(found) == [("IW100", 1), ("IW100", 5), ("IW101", 2), ("IW102", 4), ("IW103", 6), ("IW104", 7)]
    assert read(text).cut == {"a", "e"}


def test_what_was_left_out_does_not_hide_the_rest() -> None:
    parsed = read("a: [1\nb: 2\nc: 3\n")
    assert parsed.root is not None
    assert list(parsed.root.entries) == ["b", "c"]
    assert parsed.cut == {"a"}


@pytest.mark.parametrize("text", ["v: >=15GiB", "{v: >=15GiB <22GiB, w: 1}", "m:\n  v: >=15GiB  # why\n", "v: >15GiB"])
def test_an_unquoted_range_is_read_as_if_quoted(text: str) -> None:
    parsed = read(text)
    assert [finding.code for finding in parsed.diagnostics] == ["IW101"]
    fixed = apply(text, parsed)
    assert codes(fixed) == []
    assert values(fixed) == values(text)


def test_a_tab_is_read_as_the_blanks_of_its_neighbours() -> None:
    text = "m:\n  q:\n    b: 1\n\tc: 2\n\td:\n\t\te: 3\n\tf: 4\nz: 5\n"
    parsed = read(text)
    assert {finding.code for finding in parsed.diagnostics} == {"IW102"}
    assert values(text) == {"m": {"q": {"b": "1", "c": "2", "d": {"e": "3"}, "f": "4"}}, "z": "5"}
    assert codes(apply(text, parsed)) == []
    assert values(apply(text, parsed)) == values(text)


def test_a_tab_behind_a_key_has_a_safe_fix() -> None:
    parsed = read("a:\t1\n")
    assert [finding.message for finding in parsed.diagnostics] == ["tab between words"]
    assert apply("a:\t1\n", parsed) == "a: 1\n"


def apply(text: str, parsed: Parsed) -> str:
    edits = [edit for finding in parsed.diagnostics for fix in finding.fixes for edit in fix.edits]
    for edit in sorted(edits, key=lambda edit: edit.span.start, reverse=True):
        text = text[: edit.span.start] + edit.replacement + text[edit.span.end :]
    return text


def values(text: str) -> object:
    return _values(read(text).root)


def test_both_places_of_a_double_key_are_shown() -> None:
    found = read("a: 1\nb: 2\na: 3\n").diagnostics[0]
    assert found.primary is not None
    assert (found.primary.span.line, found.secondary[0].span.line) == (3, 1)
    assert scalar("a: 1\nb: 2\na: 3\n", "a").text == "1"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: &x 1", "&x 1"),
        ("a: 1\nb: *x", ""),
        ("a: {<<: {b: 1}}", "<<: {b: 1}"),
        ("a: !!str 1", "!!str 1"),
        ("a: !mine {b: 1}", ""),
    ],
)
def test_yaml_beyond_the_language_is_refused(text: str, place: str) -> None:
    found = [finding for finding in read(text).diagnostics if finding.code == "IW104"]
    if text == "a: 1\nb: *x":
        assert codes(text) == ["IW104"]
        return
    assert len(found) == 1
    assert found[0].primary is not None
    stretch = text[found[0].primary.span.start : found[0].primary.span.end]
    assert stretch.startswith(place)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["IW107"]),
        ("# only a comment\n", ["IW107"]),
        ("   \n\n", ["IW107"]),
        ("- a\n", ["IW108"]),
        ("just words", ["IW108"]),
        ("a: 1\n---\nb: 2", ["IW106"]),
        ("? [a]\n: 1", ["IW109"]),
        ("a: " + "[" * 60 + "]" * 60, ["IW109"]),
        ("a: b: c", ["IW100"]),
        ("a: @x", ["IW100"]),
    ],
)
def test_each_shape_has_its_own_code(text: str, expected: list[str]) -> None:
    assert codes(text) == expected


def test_an_unclosed_sign_is_shown_where_it_opens() -> None:
    found = read("a: 1\nb: {x: 1\nc: 2\nd: 3\n").diagnostics
    assert found[0].message == "a `{` is not closed"
    assert found[0].primary is not None
    assert (found[0].primary.span.line, found[0].primary.span.column) == (2, 4)


def test_after_very_many_broken_places_reading_ends_with_all_that_was_found() -> None:
    found = read("".join(f"k{number}: ]\n" for number in range(MOST_ROUNDS + 10)))
    assert (found.root, len(found.diagnostics)) == (None, MOST_ROUNDS)
    assert [item.primary.span.line for item in found.diagnostics if item.primary] == list(range(1, MOST_ROUNDS + 1))
