"""Faults of logs (F61-F63): a full disk, a rotation, a pipe that nobody reads. Serving goes on, and no line is torn."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imageworks.runtime.backends.logs import LifeLog, root_cause
from imageworks.runtime.logsink import DroppingHandler

from .conftest import Bench, eventually

PIPE_BYTES = 4096


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe of the smallest size that nobody reads."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def say(handler: DroppingHandler, text: str) -> None:
    handler.emit(logging.LogRecord("x", logging.INFO, "", 0, text, None, None))


def test_f61_records_that_cannot_be_written_delay_and_break_no_answer(bench: Bench) -> None:
    bench.engine("a", "serve")
    (bench.home / "log" / "requests.jsonl").symlink_to("/dev/full")  # every write fails with ENOSPC
    bench.supervise()
    bench.serve()
    assert [bench.chat("a")[0] for _ in range(20)] == [200] * 20
    assert bench.get("/healthz")[0] == 200
    assert "No space left on device" in (bench.home / "log" / "proxy.log").read_text()


def test_f61_a_log_on_a_full_disk_breaks_nothing() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    handler = DroppingHandler(full)
    say(handler, "one")
    say(handler, "two")
    os.close(full)
    assert handler.dropped == 2


def test_f62_records_survive_a_rotation_under_load(bench: Bench, tmp_path: Path) -> None:
    bench.engine("a", "serve")
    bench.supervise()
    bench.serve()
    log = bench.home / "log" / "requests.jsonl"
    assert bench.chat("a")[0] == 200
    ending = threading.Event()
    rotated = 0

    def rotate() -> None:
        nonlocal rotated
        while not ending.is_set():
            if log.exists():
                log.rename(tmp_path / f"{rotated}.jsonl")
                rotated += 1

    rotator = threading.Thread(target=rotate)
    rotator.start()
    codes = [bench.chat("a")[0] for _ in range(60)]
    eventually(lambda: rotated >= 20, "it was rotated many times")
    assert bench.proxy is not None
    bench.proxy.terminate()
    bench.proxy.wait(20)
    ending.set()
    rotator.join()
    lines = [
        line for file in [*tmp_path.glob("*.jsonl"), log] if file.exists() for line in file.read_text().splitlines()
    ]
    assert codes == [200] * 60
    assert len({json.loads(line)["record_id"] for line in lines}) == len(lines) == 61


def test_f62_the_root_cause_is_found_in_a_log_that_was_rotated_or_cut(tmp_path: Path) -> None:
    path = tmp_path / "model-a.log"
    path.write_text("0.1 E an older death\n" * 50)
    life = LifeLog(path)
    life.mark()
    shutil.copy(path, tmp_path / "model-a.log.1")
    path.write_text("")  # copytruncate
    with path.open("a") as out:
        out.write("0.2 E the death of today\n")
    assert root_cause(life.text()) == "the death of today"
    path.rename(tmp_path / "model-a.log.2")
    assert life.text() == ""
    path.write_text("0.3 E after the rename\n")
    assert root_cause(life.text()) == "after the rename"


def test_f63_a_log_that_nobody_reads_is_dropped_and_the_loss_is_told_later(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    handler = DroppingHandler(writer)
    for number in range(100):
        say(handler, f"line {number} " + "x" * 100)  # a plain write would block for ever
    assert handler.dropped > 0
    dropped = handler.dropped
    os.read(reader, PIPE_BYTES)
    say(handler, "again")
    assert handler.dropped == 0
    told = os.read(reader, PIPE_BYTES).decode()
    assert f"({dropped} lines before this one were dropped: nobody read the log)\n" in told
    assert told.endswith("again\n")


def test_f63_the_proxy_answers_while_nobody_reads_its_log(bench: Bench) -> None:
    bench.engine("a", "serve")
    bench.supervise()
    routes = bench.stack / "routes.json"
    bench.serve()
    assert bench.proxy is not None
    bench.proxy.terminate()
    bench.proxy.wait(20)
    words = [sys.executable, "-m", "imageworks", "serve", "--routes", str(routes), "--stack", str(bench.stack)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as proxy:
        assert proxy.stdout is not None
        fcntl.fcntl(proxy.stdout.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        eventually(lambda: bench.get("/readyz")[0] == 200, "the proxy is ready")
        # every load and unload logs several lines
        for _ in range(25):
            assert bench.chat("a")[0] == 200
            assert bench._ask("POST", "/unload?model=a")[0] == 200
            eventually(lambda: bench.state("a") == "stopped", "it is unloaded")
        assert bench.get("/healthz")[0] == 200
        proxy.terminate()
        assert proxy.wait(20) == 0
        assert len(proxy.stdout.read()) <= 2 * PIPE_BYTES


def test_f63_a_backend_whose_log_nobody_reads_blocks_nobody_else(bench: Bench) -> None:
    folder = bench.engine("a", "chatty")
    bench.engine("b", "serve")
    bench.supervise()
    bench.serve(bench.policy(interval_s=0.5))
    assert bench.chat("a")[0] == bench.chat("b")[0] == 200
    assert bench.supervisor is not None
    bench.supervisor.send_signal(signal.SIGSTOP)  # it reads no pipe any more: the chatty one blocks in its print
    client = threading.Thread(target=lambda: bench.chat("a"))
    client.start()
    eventually(lambda: bench.health("a")["inflight"] == 1, "the request is with the blocked engine")
    assert [bench.chat("b")[0] for _ in range(10)] == [200] * 10
    bench.supervisor.send_signal(signal.SIGCONT)
    client.join(20)
    assert bench.chat("a")[0] == 200
    assert folder.exists()
