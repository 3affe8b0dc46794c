from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml.error import YAMLError

from imageworks.source.events import Unsure, exact, quick

ROOT = Path(__file__).parents[2]
PIECES = [
    "a", "b c", "é", "0", "-", "?", ":", ",", "#", "&", "*", "!", "|", ">", "%", "@", "`", "'", '"', "[", "]", "{", "}",
    "\\", " ", "  ", "\n", "\t", "\r\n", "\x85", "\ufeff", ": ", "- ", "? ", "a: ", "a:\n", "\n  ", '"a":b', "[a]:b",
    "--- ", "...\n", "|\n  ", ">-\n  ", "| #", "&a ", "*a ", "!!str ", "<<: ", '"\\x41"', "''", "[1, 2]", "{a: b}", "{a}",
]  # fmt: skip


def shown(event: Any) -> tuple[object, ...]:
    """What the builder looks at."""
    place = (event.start_mark.index, event.end_mark.index)
    decoration = (getattr(event, "anchor", None) is not None, getattr(event, "tag", None) is not None)
    return type(event), place, decoration, getattr(event, "value", None), bool(getattr(event, "style", None))


def read_quickly(text: str) -> list[tuple[object, ...]] | None:
    try:
        return [shown(event) for event in quick(text)]
    except Unsure:
        return None


@pytest.mark.parametrize("name", ["stack.yaml", "imageworks/model/builtin.yaml", "tests/importers/config.yaml"])
def test_the_quick_parser_reads_whole_stacks_like_the_exact_one(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    found = read_quickly(text)
    assert found is not None
    assert found == [shown(event) for event in exact(text)]


@settings(max_examples=400)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
@example('[a, "b":c]')
@example("a:")
@example("a: |#\n  b")
@example("*a: b")
@example("a: >\n   \n  b")
@example("a: b\n\t")
def test_the_quick_parser_never_reads_otherwise(text: str) -> None:
    found = read_quickly(text + "\n")
    if found is None:
        return
    try:
        wanted = [shown(event) for event in exact(text + "\n")]
    except YAMLError:
        wanted = []
    assert found == wanted


@pytest.mark.parametrize(
    "text", ["a: b", "a: &x b\n", "a: !x b\n", "a:\n", "a: b\t\n", "a: b\r\n", "---\na: b\n", "a: [\n"]
)
def test_it_leaves_to_the_exact_parser_what_that_may_see_otherwise(text: str) -> None:
    assert read_quickly(text) is None
