"""Whoever watches over the proxy hears at once of its death, however it dies."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imageworks.runtime import processes, waker

PROXY = """
import sys, time
from pathlib import Path
from imageworks.runtime.waker import stand_by
print(stand_by(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def supervisor() -> Iterator[tuple[Path, socket.socket]]:
    """A socket where supervisord would listen."""
    folder = Path(tempfile.mkdtemp(prefix="iw"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        listener.listen()
        listener.settimeout(20)
        yield folder / "s", listener
    shutil.rmtree(folder)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None])
def test_the_supervisor_is_asked_after_the_death_and_not_before(
    supervisor: tuple[Path, socket.socket], how: signal.Signals | None
) -> None:
    path, listener = supervisor
    words = [sys.executable, "-c", PROXY, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = processes.identity(int(process.stdout.readline()))
        assert child is not None
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()
        listener.settimeout(20)
        if how is None:
            assert process.stdin is not None
            process.stdin.close()
        else:
            process.send_signal(how)
        assert process.stdout.read() == ""  # the end of its output is not held back by the child
        for _ in range(waker.POKES):
            asked, _ = listener.accept()
            with asked:
                assert b"supervisor.getState" in asked.recv(1000)
    assert processes.wait_gone([child], time.monotonic() + 20)


def test_without_a_supervisor_nobody_stands_by(tmp_path: Path) -> None:
    before = os.getpid()
    assert waker.stand_by(tmp_path / "nobody") is None
    assert os.getpid() == before


def test_a_supervisor_that_is_gone_or_silent_holds_nobody_up(supervisor: tuple[Path, socket.socket]) -> None:
    path, listener = supervisor
    listener.close()
    begin = time.monotonic()
    waker.wake(path)
    assert time.monotonic() - begin < 2
