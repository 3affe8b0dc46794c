"""Migrations change the version and nothing else, for every file that can be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.model.decode import values
from imageworks.model.migrations import CURRENT, migrated
from imageworks.source.parse import parse
from imageworks.source.text import SourceFile

KEYS = st.text("abcxyz_", min_size=1, max_size=6).filter(lambda key: key != "version")
LEAVES = st.sampled_from(
    ["1", '"1"', "plain text", "[a, b]", "{k: v}", "|\n    block", "# only a comment\n    deep: 1"]
)
COMMENTS = st.sampled_from(["", "# a comment\n", "\n", "---\n", "# yaml-language-server: $schema=x\n\n"])


@given(
    st.dictionaries(KEYS, LEAVES, min_size=1, max_size=4),
    COMMENTS,
    st.sampled_from(["", "version: '1'\n", 'version: "1"   # old\n']),
)
def test_what_a_file_says_stays_and_it_is_current(entries: dict[str, str], head: str, version: str) -> None:
    text = head + version + "".join(f"{key}: {value}\n" for key, value in entries.items())
    before = parse(SourceFile("f", text))
    assert before.root is not None
    made = migrated(SourceFile("f", text))
    assert made.text is not None
    assert len(made.steps) == 1
    after = parse(SourceFile("f", made.text)).root
    assert after is not None
    assert values(after) == values(before.root) | {"version": str(CURRENT)}
    assert made.text.replace("version: 1\n", "", 1).replace("version: 1   # old\n", "", 1) == text.replace(
        version, "", 1
    )
    assert migrated(SourceFile("f", made.text)).steps == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", "{version: 1}"),
        ("{a: 1}", "{version: 1, a: 1}"),
        ("# c\n{\n  a: 1\n}\n", "# c\n{version: 1, \n  a: 1\n}\n"),
        ("  a: 1\n  b: 2\n", "  version: 1\n  a: 1\n  b: 2\n"),
        ("{version: '1', a: 1}", "{version: 1, a: 1}"),
    ],
)
def test_other_layouts_of_a_file(text: str, expected: str) -> None:
    assert migrated(SourceFile("f", text)).text == expected
