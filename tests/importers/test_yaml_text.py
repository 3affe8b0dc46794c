from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from imageworks.importers.arguments import Argument, arguments
from imageworks.importers.folders import Place, below, common_root
from imageworks.importers.yaml_text import comment, flow

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUE = st.recursive(
    TEXT | st.booleans() | st.integers(-(10**9), 10**9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(VALUE)
def test_every_value_is_read_back_as_it_was(value: Any) -> None:
    for version in ((1, 1), (1, 2)):
        reader = YAML(typ="safe", pure=True)
        reader.version = version
        assert reader.load(f"x: {flow(value)}\n") == {"x": value}


@given(TEXT)
def test_a_comment_is_one_line(text: str) -> None:
    assert len(comment(text).splitlines()) == 1
    assert YAML(typ="safe", pure=True).load(f"a: 1   {comment(text)}\n") == {"a": 1}


def test_flags_take_the_next_word_unless_it_is_one() -> None:
    assert arguments(["x", "--a-b", "1", "--c_d=2", "-e", "--f", "-7.5", "--", "g"]) == (
        Argument("", "x"), Argument("a-b", "1"), Argument("c-d", "2"), Argument("e", None), Argument("f", "-7.5"),
        Argument("", "--"), Argument("", "g"),
    )  # fmt: skip


def test_the_root_is_what_repositories_say_else_what_all_share() -> None:
    assert common_root([Place("/w/x/o/n", "o/n"), Place("/w/y/z"), Place("rel")]) == "/w/x"
    assert common_root([Place("/w/x/a.gguf"), Place("/w/y/b.gguf")]) == "/w"
    assert common_root([Place("rel/a.gguf")]) is None
    assert common_root([Place("C:/a/b"), Place("/a/b")]) is None


def test_a_path_outside_the_root_keeps_its_last_two_parts() -> None:
    assert below("/w/o/n/", "/w") == ("o/n", True)
    assert below("/else/where/o/n", "/w") == ("o/n", False)
    assert below("~/n", None) == ("n", False)
    assert below("../../x", "/w") == ("../../x", True)
