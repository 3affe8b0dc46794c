"""Secrets are read when a program starts, reach its environment, and are written nowhere."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Protocol

import pytest

from imageworks import credentials
from imageworks.contract import Secret

CANARY = "canary-4711-Zq"


class Stage(Protocol):
    folder: Path

    def write(self, **changes: Any) -> Path: ...
    def launch(self, *words: str | Path, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]: ...


def environment(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    _, environ, _ = json.loads(done.stdout)
    return dict(environ)


def everything_below(folder: Path) -> str:
    return "\n".join(path.read_text("utf-8") for path in folder.rglob("*") if path.is_file())


def test_a_program_gets_its_secrets_from_each_source(stage: Stage, tmp_path: Path) -> None:
    (stage.folder / "secrets").mkdir()
    (stage.folder / "secrets" / "phone.key").write_text("from a file\n", "utf-8")
    (tmp_path / "UNIT").write_text("from systemd", "utf-8")
    secrets = {
        "A": Secret("A", env="IMAGEWORKS_A"),
        "B": Secret("B", file="secrets/phone.key"),
        "C": Secret("C", credential="UNIT"),
    }
    environ = {"IMAGEWORKS_A": "from a variable", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    found = environment(stage.launch(stage.write(secrets=secrets), environ=environ))
    assert {name: found.get(name) for name in "ABC"} == {
        "A": "from a variable",
        "B": "from a file",
        "C": "from systemd",
    }
    assert not found.keys() & environ.keys()


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        (Secret("KEY", env="IMAGEWORKS_KEY"), "secret KEY is not set; export IMAGEWORKS_KEY=… where ImageWorks is started"),
        (Secret("KEY", file="secrets/none"), "secrets/none: no such file or directory; write it into "),
        (Secret("KEY", file="."), "is a directory; write it into "),
        (Secret("KEY", credential="UNIT"), "the systemd credential UNIT: put it into /etc/credstore/UNIT"),
    ],
)  # fmt: skip
def test_a_missing_secret_stops_the_start_and_says_how_to_set_it(stage: Stage, secret: Secret, told: str) -> None:
    done = stage.launch(stage.write(secrets={"X": secret, "Y": secret}))
    assert (done.returncode, done.stdout) == (78, "")
    assert told in done.stderr
    assert done.stderr.count("imageworks: error: ") == 1


def test_nothing_that_the_launcher_writes_or_prints_holds_a_secret(stage: Stage) -> None:
    (stage.folder / ".imageworks" / "run").mkdir(parents=True)
    spec = stage.write(secrets={"KEY": Secret("KEY", env="IMAGEWORKS_KEY")}, pass_env=("PATH", "KEY"))
    environ = {"IMAGEWORKS_KEY": CANARY, "KEY": "another canary"}
    assert environment(stage.launch(spec, environ=environ))["KEY"] == CANARY
    printed = stage.launch("--print", spec, environ=environ).stdout
    assert 'KEY="$IMAGEWORKS_KEY"' in printed
    assert "canary" not in printed + everything_below(stage.folder)


@pytest.mark.parametrize(
    ("secret", "environ"),
    [
        (Secret("KEY", env="IMAGEWORKS_KEY"), {"IMAGEWORKS_KEY": CANARY}),
        (Secret("KEY", file="it's here.key"), {}),
        (Secret("KEY", credential="UNIT"), {"CREDENTIALS_DIRECTORY": "."}),
    ],
)
def test_the_printed_command_reads_the_secret_in_a_shell(stage: Stage, secret: Secret, environ: dict[str, str]) -> None:
    for name in ("it's here.key", "UNIT"):
        (stage.folder / name).write_text(f"{CANARY}\n", "utf-8")
    printed = stage.launch("--print", stage.write(secrets={"KEY": secret})).stdout
    done = subprocess.run(
        ["sh", "-c", printed], env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )
    assert environment(done)["KEY"] == CANARY


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"a\0b", "NUL byte"), (b"\xff", "is not text"), (b"x" * 65537, "larger than 64 KiB")],
)  # fmt: skip
def test_a_file_without_a_usable_value_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(credentials.SecretError, match=told):
        credentials.read(Secret("KEY", file="key"), tmp_path, {})


def test_only_the_last_line_end_is_not_part_of_a_secret(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b" two\r\nlines \r\n")
    assert credentials.read(Secret("KEY", file="key"), tmp_path, {}) == " two\r\nlines "


def test_a_secret_in_a_pipe_does_not_hang_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key")
    with pytest.raises(credentials.SecretError, match="empty"):
        credentials.read(Secret("KEY", file="key"), tmp_path, {})
