from __future__ import annotations

import re
from pathlib import Path

import pytest

from imageworks.diagnostics.codes import CODES, explain

PACKAGE = Path(__file__).parents[2] / "imageworks"
USED = {
    code: path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob("*.py")
    if path.parent != PACKAGE / "diagnostics" / "codes"
    for code in re.findall(r'"(IW[0-9]{3})"', path.read_text("utf-8"))
}


def test_every_used_code_is_explained() -> None:
    assert {code: USED[code] for code in USED if code not in CODES} == {}


def test_every_explained_code_is_used() -> None:
    assert set(CODES) - set(USED) == set()


def test_every_code_has_a_test_that_names_it() -> None:
    tests = [path.read_text("utf-8") for path in PACKAGE.parent.joinpath("tests").rglob("test_*.py")]
    tests += [path.read_text("utf-8") for path in PACKAGE.parent.joinpath("tests").rglob("conftest.py")]
    assert {code for code in CODES if not any(code in text for text in tests)} == set()


@pytest.mark.parametrize("explained", sorted(CODES))
def test_an_explanation_is_whole_sentences(explained: str) -> None:
    entry = CODES[explained]
    assert entry.explanation
    assert all(paragraph.endswith((".", "`.")) for paragraph in entry.explanation)
    assert not entry.title.endswith(".")
    assert bool(entry.good) == bool(entry.bad)
    text = explain(explained)
    assert text.startswith(f"{explained}  {entry.title}\n\n")
    assert text.endswith("\n")


def test_an_unknown_code_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        explain("IW999")
