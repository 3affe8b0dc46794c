"""`imageworks migrate`: only the version of a file changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Verb = Callable[..., tuple[int, str, str]]
BODY = "# my models\n\nmodels:   # all of them\n  a: {backend: llamacpp, source: {path: a.gguf}}\n"


def test_a_current_file_is_left_alone(small: Path, verb: Verb) -> None:
    before = (small / "stack.yaml").read_bytes()
    code, out, err = verb("migrate")
    assert (code, out, err) == (0, "", "stack.yaml is of version 1, the current one\n")
    assert (small / "stack.yaml").read_bytes() == before


def test_a_file_is_migrated_and_then_compiles(folder: Path, verb: Verb) -> None:
    (folder / "stack.yaml").write_text(BODY)
    assert verb("check")[0] == 1
    code, _, err = verb("migrate")
    assert (code, err) == (0, "migrated stack.yaml to version 1: `version: 1` says which language this is\n")
    assert (folder / "stack.yaml").read_text() == BODY.replace("models:", "version: 1\nmodels:", 1)
    assert verb("check")[0] == 0
    assert verb("migrate", "--check")[0] == 0


def test_check_shows_the_change_and_writes_nothing(folder: Path, verb: Verb) -> None:
    (folder / "old.yaml").write_text('version: "1"\n' + BODY)
    code, out, _ = verb("migrate", "--check", "old.yaml")
    assert code == 2
    assert [line for line in out.splitlines()[2:] if line[0] in "+-"] == ['-version: "1"', "+version: 1"]
    assert (folder / "old.yaml").read_text() == 'version: "1"\n' + BODY


def test_bytes_around_the_version_stay(folder: Path, verb: Verb) -> None:
    mark = "\ufeff".encode()
    (folder / "stack.yaml").write_bytes(mark + BODY.replace("\n", "\r\n").encode())
    (folder / "stack.yaml").chmod(0o640)
    assert verb("migrate")[0] == 0
    expected = BODY.replace("models:", "version: 1\nmodels:", 1).replace("\n", "\r\n")
    assert (folder / "stack.yaml").read_bytes() == mark + expected.encode()
    assert (folder / "stack.yaml").stat().st_mode & 0o777 == 0o640


def test_a_newer_file_is_an_error_that_says_so(folder: Path, verb: Verb) -> None:
    text = "version: 2\n" + BODY
    (folder / "stack.yaml").write_text(text)
    code, _, err = verb("migrate")
    assert code == 1
    assert "IW210 version 2 is newer than this ImageWorks   stack.yaml:1:10" in err
    assert "update ImageWorks" in err
    assert (folder / "stack.yaml").read_text() == text


@pytest.mark.parametrize("text", ["models: [\n", "", "version: one\n", "version: {}\n", "version:\n", "- a\n"])
def test_a_file_that_cannot_be_migrated_stays_as_it_is(folder: Path, verb: Verb, text: str) -> None:
    (folder / "stack.yaml").write_text(text)
    code, out, err = verb("migrate")
    assert (code, out) == (1, "")
    assert "IW" in err
    assert (folder / "stack.yaml").read_text() == text


@pytest.mark.usefixtures("folder")
def test_a_missing_file_is_told(verb: Verb) -> None:
    code, _, err = verb("migrate", "none.yaml")
    assert code == 1
    assert "IW110" in err


def test_every_file_is_looked_at(folder: Path, verb: Verb) -> None:
    (folder / "a.yaml").write_text("version: 7\n")
    (folder / "b.yaml").write_text(BODY)
    assert verb("migrate", "a.yaml", "b.yaml")[0] == 1
    assert (folder / "b.yaml").read_text().count("version: 1") == 1
