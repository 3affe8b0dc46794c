from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.source.format import formatted
from imageworks.source.parse import parse
from imageworks.source.text import SourceFile
from imageworks.source.tree import MapNode, Node, ScalarNode, SeqNode

ROOT = Path(__file__).parents[2]
UNEVEN = """\


# head
version: 1   


models:
      # about a
      a:
            backend: llamacpp   # aligned
            source: {path: a,
                     file: b}
            # still about a
            note: |
               text  
                 more


               last
            aliases:
            - one
            -   - x: 1
                  y: 2
                - two
            -
              z: 1
      b: >-
        folded
        text
profiles:
   # about p
   p: {}
# tail


"""  # noqa: W291 - blanks at line ends are what this is about
EVEN = """\
# head
version: 1

models:
  # about a
  a:
    backend: llamacpp   # aligned
    source: {path: a,
             file: b}
    # still about a
    note: |
       text  
         more


       last
    aliases:
      - one
      -   - x: 1
            y: 2
          - two
      -
        z: 1
  b: >-
    folded
    text
profiles:
  # about p
  p: {}
# tail
"""  # noqa: W291 - those inside a text stay


def lay_out(text: str) -> str:
    made = formatted(SourceFile("a.yaml", text))
    assert made.text is not None, made.diagnostics
    return made.text


def test_blocks_stand_two_blanks_a_level_and_comments_go_with_them() -> None:
    assert lay_out(UNEVEN) == EVEN


def test_an_even_text_stays_as_it_is() -> None:
    assert lay_out(EVEN) == EVEN


@pytest.mark.parametrize("name", ["stack.yaml", "imageworks/model/builtin.yaml"])
def test_shipped_files_have_the_layout(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert lay_out(text) == text


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_lines_end_with_a_line_feed(end: str) -> None:
    assert lay_out(UNEVEN.replace("\n", end)) == EVEN


def test_what_cannot_be_read_is_refused_with_its_findings() -> None:
    made = formatted(SourceFile("a.yaml", "a: 1\n\tb: 2\n"))
    assert made.text is None
    assert [item.code for item in made.diagnostics] == ["IW102"]


def test_a_text_whose_meaning_would_change_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imageworks.source.format._laid_out", lambda source, _: source.text.replace("1", "2"))
    made = formatted(SourceFile("a.yaml", "a: 1\n"))
    assert made.text is None
    assert made.diagnostics == ()


def meaning(node: Node | None) -> object:
    if isinstance(node, MapNode):
        return {key: meaning(entry.value) for key, entry in node.entries.items()}
    if isinstance(node, SeqNode):
        return [meaning(item) for item in node.items]
    return (node.text, node.plain) if isinstance(node, ScalarNode) else None


WORDS = st.sampled_from(
    ["a", "b: ", "- ", "x", "'y'", '"z "', "{k: v}", "[1,\n 2]", "|\n    t\n", "# c", ">-\n  f\n\n  g"]
)
LINES = st.builds(
    lambda blanks, words, tail: " " * blanks + "".join(words) + tail,
    st.integers(0, 6),
    st.lists(WORDS, max_size=4),
    st.sampled_from(["", " ", " # why", ":"]),
)


@given(st.lists(LINES, max_size=9).map("\n".join))
def test_the_layout_is_reached_at_once_and_means_the_same(text: str) -> None:
    once = formatted(SourceFile("a.yaml", text)).text
    if once is None:
        return
    assert formatted(SourceFile("a.yaml", once)).text == once
    assert meaning(parse(SourceFile("a.yaml", once)).root) == meaning(parse(SourceFile("a.yaml", text)).root)
    assert [line.partition("#")[2].rstrip() for line in once.splitlines() if "#" in line] == [
        line.partition("#")[2].rstrip() for line in text.splitlines() if "#" in line
    ]


PAIRS = st.recursive(
    st.sampled_from(["v", "'q'", "{f: 1}"]),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3), st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


def written(value: object, column: int, step: int) -> str:
    """`value` as a block below a key or dash that stands left of `column`."""
    if isinstance(value, dict):
        rows = [f"{' ' * column}{key}:{written(item, column + step, step)}" for key, item in value.items()]
        return "\n" + "\n".join(rows)
    if isinstance(value, list):
        return "\n" + "\n".join(f"{' ' * column}-{written(item, column + step, step)}" for item in value)
    return f" {value}  # {column}"


@given(st.dictionaries(st.sampled_from("abcd"), PAIRS, min_size=1, max_size=3), st.integers(1, 6))
def test_every_indentation_leads_to_the_same_text(value: dict[str, object], step: int) -> None:
    def plain(text: str) -> list[str]:
        return [line.partition("#")[0] for line in text.splitlines()]

    assert plain(lay_out(written(value, 0, step)[1:] + "\n")) == plain(written(value, 0, 2)[1:])
