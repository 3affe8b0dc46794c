from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imageworks.source.text import SourceFile, line_starts

TEXTS = st.text(alphabet=st.sampled_from("aé中𝄞 \t:\r\n\u2028"), max_size=60)


@given(TEXTS, st.integers(0, 70), st.integers(0, 70))
def test_a_span_leads_back_to_its_text(text: str, start: int, length: int) -> None:
    source = SourceFile("s", text)
    span = source.span(start, start + length)
    line_start, _ = source.line_bounds(span.line)
    assert text[line_start + span.column - 1 :].startswith(text[span.start : span.end])
    assert text[span.start : span.end] == text[start : start + length]


@given(TEXTS)
def test_lines_are_those_of_the_three_line_ends(text: str) -> None:
    source = SourceFile("s", text)
    lines = [slice(*source.line_bounds(number + 1)) for number in range(source.lines)]
    assert [text[line] for line in lines] == text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def test_columns_count_characters_not_bytes() -> None:
    span = SourceFile("s", "x\n  é𝄞: b").span(7, 8)
    assert (span.line, span.column, span.end_line, span.end_column) == (2, 6, 2, 7)


def test_a_place_beyond_the_text_is_its_end() -> None:
    assert SourceFile("s", "ab\n").span(50, 60).start == 3
    assert line_starts("") == (0,)
