"""The launcher leaves word of what it started, and nothing of it can keep a program from starting."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Protocol

from imageworks import contract


class Stage(Protocol):
    folder: Path

    def write(self, **changes: Any) -> Path: ...
    def launch(self, *words: str | Path) -> subprocess.CompletedProcess[str]: ...


PID = ("{python}", "-c", "import os; print(os.getpid())")


def test_the_word_names_the_process_and_the_spec_in_force(stage: Stage) -> None:
    run = stage.folder / ".imageworks" / "run"
    run.mkdir(parents=True)
    spec = stage.write(argv=PID)
    done = stage.launch(spec)
    word = json.loads((run / "model-tiny.started.json").read_text("utf-8"))
    assert (word["schema"], word["pid"], word["file"]) == (1, int(done.stdout), str(spec))
    assert isinstance(word["start"], int)
    assert word["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    assert contract.exec_spec(json.dumps(word["spec"])) == contract.exec_spec(spec.read_text("utf-8"))
    assert [path.name for path in run.iterdir()] == ["model-tiny.started.json"]


def test_showing_a_command_starts_nothing_and_leaves_no_word(stage: Stage) -> None:
    run = stage.folder / ".imageworks" / "run"
    run.mkdir(parents=True)
    assert stage.launch("--print", stage.write(argv=PID)).returncode == 0
    assert list(run.iterdir()) == []


def test_a_word_that_cannot_be_left_stops_no_program(stage: Stage) -> None:
    run = stage.folder / ".imageworks" / "run"
    (run / "model-tiny.started.json").mkdir(parents=True)  # a folder where the file belongs: the rename fails
    assert stage.launch(stage.write(argv=PID)).returncode == 0
    assert [path.name for path in run.iterdir()] == ["model-tiny.started.json"]
