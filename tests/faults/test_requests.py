"""Faults of a backend in the middle of a request (F5, F6): the real proxy, real engines, kill -9."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from .conftest import Bench, eventually


def chats(bench: Bench, name: str) -> int:
    return (bench.folder(name) / "hits").read_text().splitlines().count("/v1/chat/completions")


def kill(bench: Bench, name: str) -> None:
    os.kill(int((bench.folder(name) / "starts").read_text().split()[-1]), signal.SIGKILL)


def test_f05_a_backend_that_is_killed_before_its_first_byte_is_started_once_and_asked_once_more(bench: Bench) -> None:
    folder = bench.engine("a", "serve")
    bench.supervise()
    bench.serve()
    assert bench.chat("a")[0] == 200
    (folder / "hold").touch()
    answers: list[tuple[int, Any]] = []
    client = threading.Thread(target=lambda: answers.append(bench.chat("a")))
    client.start()
    eventually(lambda: chats(bench, "a") == 2, "the engine has the request")
    kill(bench, "a")
    (folder / "hold").unlink()
    client.join(30)
    # the process that had it is proved gone and no byte had come: nobody can have seen an answer
    assert [status for status, _ in answers] == [200]
    assert bench.starts("a") == 2
    assert chats(bench, "a") == 3


def test_f06_a_backend_that_is_killed_in_its_answer_gives_one_error_event_and_no_end(bench: Bench) -> None:
    bench.engine("a", "drip")
    bench.supervise()
    bench.serve()
    with bench.stream("a") as response:
        assert response.status == 200
        assert response.readline().startswith(b"data: ")
        kill(bench, "a")
        rest = response.read().decode()
    events = [line for line in rest.splitlines() if line.startswith("data: ")]
    errors = [event for event in events if '"error"' in event]
    assert len(errors) == 1
    assert events[-1] == errors[0]
    assert "[DONE]" not in rest
    # the next life serves nobody's old request
    assert bench.starts("a") == 1
    eventually(lambda: bench.state("a") != "ready", "the death is noticed")
