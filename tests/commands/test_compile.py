"""`imageworks compile`, `check` and `explain` as a person uses them, wrong inputs included."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import SMALL, Verb


def test_the_smallest_stack_compiles_for_every_profile(small: Path, verb: Verb) -> None:
    code, _, err = verb("compile")
    assert code == 0, err
    assert len([path for path in (small / "generated").iterdir() if path.is_dir()]) == 9
    assert (small / ".imageworks" / "bin" / "launch").stat().st_mode & 0o777 == 0o700
    assert "[supervisorctl]" in (small / "supervisord.conf").read_text()


def test_a_second_compile_touches_nothing(small: Path, verb: Verb) -> None:
    verb("compile")
    before = {path: path.stat().st_mtime_ns for path in (small / "generated").rglob("*")}
    code, _, err = verb("compile")
    assert code == 0
    assert "up to date" in err
    assert {path: path.stat().st_mtime_ns for path in (small / "generated").rglob("*")} == before


def test_check_mode_shows_the_difference_and_writes_nothing(small: Path, verb: Verb) -> None:
    verb("compile")
    assert verb("compile", "--check")[0] == 0
    (small / "stack.yaml").write_text(SMALL.replace("chat: 50", "chat: 60"), encoding="utf-8")
    code, out, _ = verb("compile", "--check")
    assert code == 2
    assert re.search(r'^\+.*"priority": 60', out, re.MULTILINE)
    assert verb("compile")[0] == 0
    assert verb("compile", "--check")[0] == 0


def test_a_hand_edited_output_is_never_lost(small: Path, verb: Verb) -> None:
    verb("compile")
    edited = small / "generated" / "development" / "supervisord.conf"
    edited.write_text(edited.read_text() + "; my own line\n")
    code, _, err = verb("compile")
    assert code == 1
    assert "supervisord.conf" in err
    assert "my own line" in edited.read_text()
    assert verb("compile", "--overwrite")[0] == 0
    assert "my own line" not in edited.read_text()


def test_one_profile_alone_leaves_the_others(small: Path, verb: Verb) -> None:
    assert verb("compile", "--profile", "development")[0] == 0
    assert [path.name for path in (small / "generated").iterdir() if path.is_dir()] == ["development"]
    code, _, err = verb("compile", "--profile", "developmnt")
    assert code == 1
    assert "developmnt" in err
    assert "compact_8gb" in err


def test_an_out_folder_elsewhere_is_refused(small: Path, verb: Verb) -> None:
    assert small.exists()
    code, _, err = verb("compile", "--out", "../elsewhere")
    assert code == 1
    assert "outside" in err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "imageworks init"),
        ("", "stack.yaml"),
        ("just words", "stack.yaml:1:1"),
        ("version: 1\nmodels: {a: [}\n", "stack.yaml:2"),
        ("\x00\x01", "stack.yaml:1:1"),
        (SMALL.replace("backend", "bakend"), "did you mean `backend`"),
        (SMALL.replace("chat: 50", "chatt: 50"), "did you mean `chat`"),
        (SMALL + "profiles: {development: {strategy: load_unlod}}\n", "did you mean `load_unload`"),
        (SMALL + "proxy: {bind: 0.0.0.0:8100}\n", "IW330"),
    ],
)
def test_a_wrong_stack_is_explained_and_nothing_is_written(
    folder: Path, verb: Verb, text: str | None, expected: str
) -> None:
    if text is not None:
        (folder / "stack.yaml").write_text(text, encoding="utf-8")
    for command in ("check", "compile", "up"):
        code, out, err = verb(command)
        assert code == 1
        assert expected in out + err
        assert "Traceback" not in err
    assert sorted(path.name for path in folder.iterdir()) == (["stack.yaml"] if text is not None else [])


def test_several_mistakes_are_found_in_one_run(folder: Path, verb: Verb) -> None:
    text = SMALL.replace("chat: 50", "chatt: 500").replace("backend: llamacpp", "backend: llamacpp\n    port: 24001")
    (folder / "stack.yaml").write_text(text + "defaults: {grace: 300}\n", encoding="utf-8")
    code, out, _ = verb("check", "--format", "json")
    assert code == 1
    found = {(item["code"], item["primary"]["span"]["line"]) for item in json.loads(out)}
    assert {("IW207", 5), ("IW206", 8), ("IW204", 9)} <= found


def test_explain_knows_every_code_and_proposes_close_ones(verb: Verb) -> None:
    code, out, _ = verb("explain", "iw410")
    assert code == 0
    assert "IW410" in out
    assert verb("explain")[1].count("IW") > 20
    code, _, err = verb("explain", "IW999")
    assert code == 1
    assert "IW" in err


def test_the_ten_line_stack_of_init_compiles_and_is_never_overwritten(folder: Path, verb: Verb) -> None:
    assert verb("init")[0] == 0
    assert verb("check")[0] == 0
    assert ".imageworks/" in (folder / ".gitignore").read_text().splitlines()
    (folder / "stack.yaml").write_text(SMALL, encoding="utf-8")
    code, _, err = verb("init")
    assert code == 1
    assert "already there" in err
    assert (folder / "stack.yaml").read_text() == SMALL


def test_two_compiles_at_once_are_safe(small: Path) -> None:
    command = [sys.executable, "-m", "imageworks", "compile"]
    runs = [subprocess.Popen(command, cwd=small, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    outcomes = [(run.communicate()[1], run.returncode) for run in runs]
    assert [code for _, code in outcomes] == [0, 0, 0], outcomes
    check = subprocess.run([*command, "--check"], cwd=small, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout
