from __future__ import annotations

import pytest

from imageworks.source.comments import beside


@pytest.mark.parametrize(
    ("text", "value", "comment"),
    [
        ("a: 1  # why", "1", "why"),
        ("a: 1", "1", ""),
        ("a: 1#2", "1#2", ""),
        ("a: {b: 1, c: '# no'}   # yes", "1", "yes"),
        ('a: {b: 1, c: "\\"# no"}   ## yes ', "1", "yes"),
        ("a: 1\r\n# below", "1", ""),
        ("a: 1 # b # c", "1", "b # c"),
    ],
)
def test_the_comment_on_the_line_of_a_value(text: str, value: str, comment: str) -> None:
    assert beside(text, text.index(value) + len(value)) == comment


def test_an_empty_file_has_none() -> None:
    assert beside("", 0) == ""
