"""The command line as a whole: fast to ask, exact in its exit codes, never a traceback."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from imageworks import __version__, cli
from imageworks.commands import bugreport


def modules_after(*words: str) -> set[str]:
    code = f"import sys; from imageworks.cli import run; run({list(words)!r}); print('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("up", "--help"), ("compile", "--help")])
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    heavy = {
        "pydantic",
        "ruamel.yaml",
        "jinja2",
        "aiohttp",
        "msgspec",
        "supervisor",
        "pynvml",
        "asyncio",
        "imageworks.plan",
    }
    assert not heavy & modules_after(*words)


def test_check_imports_neither_runtime_nor_emitters(tmp_path: object) -> None:
    loaded = modules_after("check", "-f", f"{tmp_path}/missing.yaml")
    assert not {"aiohttp", "jsonschema", "jinja2", "imageworks.runtime"} & loaded


@pytest.mark.parametrize("words", [("check",), ("compile", "--check")])
def test_compiling_imports_only_what_it_needs(words: tuple[str, ...]) -> None:
    loaded = modules_after(*words, "-f", str(Path(__file__).parents[1] / "stack.yaml"))
    assert "imageworks.plan.resolve" in loaded
    assert not {"aiohttp", "asyncio", "jsonschema", "msgspec", "imageworks.runtime"} & loaded
    assert ("jinja2" in loaded) == ("imageworks.targets.systemd" in loaded) == (words[0] == "compile")


def test_the_exit_code_and_all_output_arrive_through_a_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "imageworks", "explain", "IW999"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout == "", "IW999" in done.stderr) == (1, True, True)


def test_output_that_cannot_be_written_is_no_success() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            [sys.executable, "-m", "imageworks", "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode != 0


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"imageworks {__version__}\n"


def test_an_unknown_verb_gets_the_close_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["chekc"]) == 1
    assert "did you mean `check`" in capsys.readouterr().err


def test_ctrl_c_is_130_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.cli, "main", interrupted)
    assert cli.run([]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_of_ours_is_3_and_leaves_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("wires crossed")

    monkeypatch.setattr(cli.cli, "main", broken)
    assert cli.run(["check"]) == 3
    err = capsys.readouterr().err
    assert "wires crossed" in err
    assert "Traceback" not in err
    report = next(word for word in err.split() if "imageworks-bug-" in word).rstrip(";")
    with open(report, encoding="utf-8") as file:  # noqa: PTH123 - the path is text from the screen
        assert "Traceback" in file.read()


def test_a_report_that_cannot_be_written_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    assert "wires crossed" in bugreport.write_report(RuntimeError("wires crossed"), ["check"])
