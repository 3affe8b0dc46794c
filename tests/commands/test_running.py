"""The control connection of the verbs, and what they do about processes that outlived their supervisor."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imageworks.commands.running import NotRunningError, Running, alive, survivors, sweep, wait_gone

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(600)"
)
OBEDIENT = "import time; print('here', flush=True); time.sleep(600)"


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that carries the launcher's marks of this folder, as an engine whose supervisor was killed."""
    environ = {**os.environ, "IMAGEWORKS_STACK": str(tmp_path), "IMAGEWORKS_PROGRAM": "model-a"}
    with subprocess.Popen([sys.executable, "-c", OBEDIENT], env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_without_a_socket_nothing_runs(tmp_path: Path) -> None:
    running = Running(tmp_path)
    assert not running.is_up()
    with pytest.raises(NotRunningError):
        running.programs()


def test_a_socket_left_behind_does_not_count(tmp_path: Path) -> None:
    running = Running(tmp_path)
    running.socket.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(running.socket))
    assert running.socket.exists()
    assert not running.is_up()


def test_survivors_are_found_by_their_folder_only(tmp_path: Path, orphan: subprocess.Popen[str]) -> None:
    assert list(survivors(tmp_path)) == [(orphan.pid, "model-a")]
    assert list(survivors(tmp_path / "another")) == []


def test_a_survivor_is_ended_and_named(tmp_path: Path, orphan: subprocess.Popen[str]) -> None:
    assert sweep(tmp_path) == (f"model-a ({orphan.pid})",)
    assert not alive(orphan.pid)
    assert sweep(tmp_path) == ()


def test_a_survivor_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    environ = {**os.environ, "IMAGEWORKS_STACK": str(tmp_path), "IMAGEWORKS_PROGRAM": "model-b"}
    with subprocess.Popen([sys.executable, "-c", STUBBORN], env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert sweep(tmp_path) == (f"model-b ({process.pid})",)
        assert process.wait(timeout=10) == -9


def test_waiting_for_a_living_process_ends_in_time() -> None:
    assert not wait_gone(os.getpid(), 0.1)
