"""Faults of a server that runs but does not work (F8, F13, F34, F56), under the real proxy and supervisord."""

from __future__ import annotations

import os
import signal

from imageworks.runtime import processes
from imageworks.runtime.health import FALL

from .conftest import Bench, eventually

INTERVAL_S = 1.0


def loaded(bench: Bench, mode: str, name: str = "a") -> int:
    """A model with the bad engine, loaded behind the proxy; returns the pid of its server."""
    bench.engine(name, mode)
    bench.supervise()
    bench.serve(bench.policy(name, interval_s=INTERVAL_S))
    eventually(lambda: bench.state(name) == "ready", "it is loaded at start")
    return int((bench.folder(name) / "starts").read_text().split()[-1])


def test_a_model_that_works_is_healthy(bench: Bench) -> None:
    loaded(bench, "serve")
    eventually(lambda: bench.health("a")["health"] == "healthy", "it is looked at")
    _, answer = bench.get("/v1/models/health")
    assert (answer["healthy"], answer["total"], answer["interval_s"]) == (1, 1, INTERVAL_S)
    assert bench.health("a")["reason"] is None


def test_f08_a_server_whose_engine_is_killed_is_restarted(bench: Bench) -> None:
    loaded(bench, "worker")
    (worker,) = bench.ledger("a")
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: bench.starts("a") == 2 and bench.state("a") == "ready", "the life is ended and a new one begins")
    assert processes.look(worker) is None


def test_f08_a_server_whose_health_fails_for_good_is_restarted_with_the_reason(bench: Bench) -> None:
    loaded(bench, "sick")
    eventually(lambda: bench.health("a")["health"] == "healthy", "it is looked at")
    (bench.folder("a") / "sick").touch()
    eventually(lambda: bench.state("a") != "ready", "it is given up")
    assert "/health says 503" in bench.health("a")["reason"]
    (bench.folder("a") / "sick").unlink()
    eventually(lambda: bench.starts("a") >= 2 and bench.state("a") == "ready", "a new life begins")


def test_f13_a_frozen_backend_is_suspected_and_then_restarted(bench: Bench) -> None:
    pid = loaded(bench, "serve")
    eventually(lambda: bench.health("a")["health"] == "healthy", "it is looked at")
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: bench.health("a")["health"] == "suspect", "the silence is noticed")
    assert bench.state("a") == "ready", "one silence ends nothing"
    eventually(lambda: bench.starts("a") == 2 and bench.state("a") == "ready", "it is restarted", 60)
    assert processes.look(pid) is None


def test_an_engine_that_answers_health_but_computes_nothing_is_restarted(
    bench: Bench,
) -> None:
    loaded(bench, "zombie")
    assert bench.chat("a")[0] == 200
    eventually(lambda: bench.health("a")["health"] == "healthy", "it is looked at")
    (bench.folder("a") / "stuck").touch()
    # the client gives up without having had a byte, and the health endpoint still says that all is well
    with bench.sent("a"):
        eventually(lambda: bench.health("a")["inflight"] == 1, "the request is with the engine")
    eventually(lambda: bench.health("a")["health"] == "suspect", "a canary gets no token either", 20)
    assert "computes no token" in bench.health("a")["reason"]
    eventually(lambda: bench.starts("a") == 2, "it is restarted", 60)


def test_f34_a_health_endpoint_that_is_blocked_while_requests_progress_is_not_death(bench: Bench) -> None:
    loaded(bench, "busy")
    eventually(lambda: bench.health("a")["health"] == "healthy", "it is looked at")
    with bench.stream("a") as response:
        looks = bench.folder("a") / "looks"
        seen = len(looks.read_text().splitlines())
        # as many silent looks as would end the life of a model that does nothing
        while len(looks.read_text().splitlines()) < seen + FALL + 1:
            assert response.readline().startswith((b"data: ", b"\n"))
        assert bench.starts("a") == 1
        assert bench.health("a")["health"] == "healthy"


def test_f56_health_that_alternates_restarts_nothing(bench: Bench) -> None:
    loaded(bench, "flap")
    looks = bench.folder("a") / "looks"
    eventually(lambda: looks.exists() and len(looks.read_text().splitlines()) >= 14, "many looks", 60)
    assert bench.starts("a") == 1
    assert bench.state("a") == "ready"
    assert bench.chat("a")[0] == 200
