from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from imageworks.diagnostics.human import concise, full
from imageworks.diagnostics.model import Applicability, Diagnostic, Edit, Fix, Label, Severity, Span
from imageworks.diagnostics.snippet import WIDEST, columns, snippet, visible


def span(line: int, column: int, width: int, file: str = "s") -> Span:
    return Span(file, 0, 0, line, column, line, column + width)


TEXT = "one: 1\n  bakend: vllm\n"
FINDING = Diagnostic(
    "IW201",
    "unknown key `bakend`",
    Label(span(2, 3, 6), "did you mean `backend`?"),
    notes=("because",),
    fixes=(Fix("rename", Applicability.SAFE, (Edit(span(2, 3, 6), "backend"),)),),
)


def test_the_form_is_that_of_the_language() -> None:
    assert full([FINDING], {"s": TEXT}) == (
        "IW201 unknown key `bakend`   s:2:3\n"
        "    2 |   bakend: vllm\n"
        "      |   ^^^^^^ did you mean `backend`?\n"
        "      = because\n"
        "      = fix (safe): rename\n"
    )
    assert concise([FINDING]) == "s:2:3: IW201 unknown key `bakend`\n"


def test_secondary_places_are_dashed_and_in_the_order_of_the_file() -> None:
    finding = Diagnostic("IW103", "twice", Label(span(3, 1, 1), "second"), secondary=(Label(span(1, 1, 1), "first"),))
    assert full([finding], {"s": "a\nb\na\n"}).splitlines()[1:] == [
        "    1 | a",
        "      | - first",
        "    3 | a",
        "      | ^ second",
    ]


def test_a_place_in_another_file_is_named() -> None:
    finding = Diagnostic("IW103", "x", Label(span(1, 1, 1)), secondary=(Label(span(1, 2, 1, "other"), "there"),))
    assert "      > other:1:2\n    1 | xyz\n      |  - there\n" in full([finding], {"s": "a", "other": "xyz"})


def test_ways_to_choose_from_share_a_line() -> None:
    fixes = (Fix("300s", edits=(Edit(span(1, 1, 1), "300s"),)), Fix("5m is the same time"))
    assert "      = fix (choose): 300s | 5m is the same time\n" in full(
        [Diagnostic("IW204", "x", None, fixes=fixes)], {}
    )
    assert "      = fix: only way\n" in full([Diagnostic("IW204", "x", None, fixes=(Fix("only way"),))], {})


def test_a_weight_below_error_is_said() -> None:
    finding = Diagnostic("IW421", "not known", None, Severity.WARNING)
    assert full([finding], {}) == "IW421 warning: not known\n"
    assert concise([finding]) == "IW421 warning: not known\n"


def test_a_place_without_its_text_keeps_its_words() -> None:
    assert full([FINDING], {}).splitlines()[1] == "      | did you mean `backend`?"


def test_wide_characters_keep_the_marks_below_their_place() -> None:
    assert snippet("写真: [né]", 4, 8, "^") == ("写真: [né]", "      ^^^^")
    assert columns("e\u0301") == 1


def test_a_tab_is_four_blanks_in_line_and_marks() -> None:
    assert snippet("\tab", 1, 3, "^") == ("    ab", "    ^^")


@given(st.text(max_size=80))
@example("a\u202eb\u2066c\u200b\u2028\x9b31m\x1b]0;x\x07")
def test_nothing_of_a_file_can_steer_the_terminal(text: str) -> None:
    finding = Diagnostic("IW100", text, Label(span(1, 1, max(len(text), 1)), text), notes=(text,))
    said = full([finding], {"s": text}) + concise([finding])
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\u2028\u2029]", said)
    assert not re.search("[\ud800-\udfff]", said)


@given(st.text(max_size=60), st.integers(0, 70), st.integers(0, 70))
def test_there_is_always_a_mark(text: str, start: int, width: int) -> None:
    _, marks = snippet(text, start, start + width, "^")
    assert marks.endswith("^")


def test_a_long_line_is_shown_around_its_place() -> None:
    line = "x" * 1000 + "HERE" + "y" * 1000
    source, marks = snippet(line, 1000, 1004, "^")
    assert source[marks.index("^") : marks.index("^") + 4] == "HERE"
    assert len(source) <= WIDEST + 2
    assert source.startswith("…")
    assert source.endswith("…")


def test_colour_changes_nothing_but_colour() -> None:
    plain, coloured = full([FINDING], {"s": TEXT}), full([FINDING], {"s": TEXT}, colour=True)
    assert plain != coloured
    assert re.sub("\x1b\\[[0-9;]*m", "", coloured) == plain


def test_ascii_can_be_asked_for() -> None:
    finding = Diagnostic("IW100", "a … é", None)
    assert full([finding], {}, unicode=False) == "IW100 a ... \\xe9\n"
    assert visible("é…") == "é…"


def test_a_place_without_text_or_words_is_a_place_alone() -> None:
    assert full([Diagnostic("IW103", "x", Label(span(7, 1, 1)))], {}) == "IW103 x   s:7:1\n"
