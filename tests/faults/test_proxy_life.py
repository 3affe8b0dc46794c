"""Faults of the proxy and of supervisord (F1-F3, F9-F12): real processes, ended at the worst moment."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import IncompleteRead

import pytest

from imageworks import contract
from imageworks.runtime import processes

from .conftest import Bench, eventually

CARD = (contract.Gpu(0, 2000, 3000),)
LEASE = {"vram_mib": 500, "owner": "trainer", "ttl_s": 60}


def kill(bench: Bench) -> None:
    assert bench.proxy is not None
    bench.proxy.kill()
    bench.proxy.wait()


@pytest.fixture
def two(bench: Bench) -> Bench:
    """Two engines, both up."""
    for name in ("a", "b"):
        bench.engine(name, "serve")
    bench.supervise()
    bench.serve()
    for name in ("a", "b"):
        assert bench.chat(name)[0] == 200
    return bench


def test_f01_a_killed_idle_proxy_comes_back_to_the_backends_that_ran(two: Bench) -> None:
    before = {name: two.left(name) for name in ("a", "b")}
    kill(two)
    begin = time.monotonic()
    two.serve()
    assert [two.chat(name)[0] for name in ("a", "b")] == [200, 200]
    assert time.monotonic() - begin < 15  # the measured p99 is in docs/reliability.md; this only catches a hang
    assert {name: two.left(name) for name in ("a", "b")} == before
    assert (two.starts("a"), two.starts("b")) == (1, 1)


def test_f02_a_proxy_killed_in_a_stream_breaks_it_and_keeps_the_lease(bench: Bench) -> None:
    bench.engine("a", "drip")
    bench.supervise()
    bench.serve(gpus=CARD)
    given = bench.post("/v1/gpu/lease", LEASE)[1]
    with bench.stream("a") as answer:
        assert b"data:" in answer.readline()
        kill(bench)
        with pytest.raises((IncompleteRead, ConnectionError)) as broken:
            answer.read()
    if isinstance(broken.value, IncompleteRead):
        assert b"[DONE]" not in broken.value.partial
    bench.serve(gpus=CARD)
    renewed = bench.post(f"/v1/gpu/lease/{given['lease_id']}/renew", {"token": given["token"]})
    assert (renewed[0], renewed[1]["state"]) == (200, "active")
    assert bench.get("/v1/gpu/status")[1]["gpus"][0]["free_mib"] == 1500
    later = bench.post("/v1/gpu/lease", LEASE)[1]
    assert later["token"] > given["token"]


@contextmanager
def never_together(bench: Bench, *names: str) -> Iterator[list[str]]:
    """Inside, engines that hold memory at the same time are noted."""
    seen: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            holding = [name for name in names if bench.ledger(name)]
            if len(holding) > 1:
                seen.append(" and ".join(holding))
            over.wait(0.002)

    thread = threading.Thread(target=look)
    thread.start()
    yield seen
    over.set()
    thread.join()


def in_turn(bench: Bench) -> threading.Thread:
    """One slot, two models: `a` is up and stops slowly, and a request for `b` was sent."""
    bench.engine("a", "deaf", gpu_mib={"0": 1500})
    bench.engine("b", "serve", gpu_mib={"0": 1500})
    bench.supervise()
    bench.serve(gpus=CARD, leases=contract.Leases(min_residency_s=0.0))
    assert bench.chat("a")[0] == 200
    asking = threading.Thread(target=lambda: bench.chat("b"))
    asking.start()
    eventually(lambda: bench.state("a") == "stopping", "the swap begins")
    return asking


def test_f03_a_proxy_killed_in_a_swap_never_lets_both_hold_the_memory(bench: Bench) -> None:
    asking = in_turn(bench)
    with never_together(bench, "a", "b") as together:
        kill(bench)
        asking.join()
        bench.serve(gpus=CARD, leases=contract.Leases(min_residency_s=0.0))
        assert bench.chat("b")[0] == 200
        assert bench.ledger("a") == []
    assert together == []
    assert (bench.starts("a"), bench.starts("b")) == (1, 1)


def test_f09_what_outlives_a_killed_supervisord_is_ended_before_anything_starts(bench: Bench) -> None:
    bench.engine("a", "grandchild")
    bench.supervise()
    bench.serve()
    assert bench.chat("a")[0] == 200
    orphans = bench.left("a")
    assert len(orphans) == 2
    kill(bench)
    assert bench.supervisor is not None
    bench.supervisor.kill()
    bench.supervisor.wait()
    assert bench.left("a") == orphans
    bench.supervise()
    bench.serve()
    assert bench.left("a") == ()
    assert bench.starts("a") == 1
    assert bench.chat("a")[0] == 200
    assert bench.starts("a") == 2


def test_f10_a_proxy_that_is_told_to_end_in_a_swap_ends_in_order(bench: Bench) -> None:
    asking = in_turn(bench)
    assert bench.proxy is not None
    bench.proxy.send_signal(signal.SIGTERM)
    assert bench.proxy.wait(10) == 0
    asking.join()
    assert bench.starts("b") == 0
    bench.serve(gpus=CARD, leases=contract.Leases(min_residency_s=0.0))
    assert bench.chat("b")[0] == 200
    assert bench.ledger("a") == []


def test_f11_a_second_signal_shortens_the_drain_and_nothing_is_lost(bench: Bench) -> None:
    bench.engine("a", "drip")
    bench.supervise()
    bench.serve(gpus=CARD, drain_s=60.0)
    given = bench.post("/v1/gpu/lease", LEASE)[1]
    assert bench.proxy is not None
    with bench.stream("a") as answer:
        answer.readline()
        bench.proxy.send_signal(signal.SIGTERM)
        eventually(lambda: b"in flight" in (bench.home / "log/proxy.log").read_bytes(), "it drains")
        for _ in range(20):
            bench.proxy.send_signal(signal.SIGINT)
        begin = time.monotonic()
        assert bench.proxy.wait(15) == 0
        assert time.monotonic() - begin < 10
        assert b"[DONE]" not in answer.read()
    assert "Traceback" not in (bench.home / "log/proxy.log").read_text()
    bench.serve(gpus=CARD)
    (kept,) = bench.get("/v1/gpu/status")[1]["leases"]
    assert (kept["lease_id"], kept["token"]) == (given["lease_id"], given["token"])


def test_f12_a_proxy_that_stood_still_takes_no_lease_and_looks_before_it_sends(bench: Bench) -> None:
    bench.engine("a", "serve")
    bench.supervise()
    bench.serve(gpus=CARD)
    assert bench.chat("a")[0] == 200
    given = bench.post("/v1/gpu/lease", {**LEASE, "ttl_s": 2.5})[1]
    assert bench.proxy is not None
    bench.proxy.send_signal(signal.SIGSTOP)
    for pid in bench.left("a"):
        os.kill(pid, signal.SIGKILL)
    time.sleep(5.5)  # the fault itself: twice the ttl
    bench.proxy.send_signal(signal.SIGCONT)
    renewed = bench.post(f"/v1/gpu/lease/{given['lease_id']}/renew", {"token": given["token"]})
    assert renewed[0] == 200, renewed
    eventually(lambda: bench.chat("a")[0] == 200, "the dead model is found and started again")
    assert bench.starts("a") == 2
    assert "stood still" in (bench.home / "log/proxy.log").read_text()
    # the clock goes on: who stays silent now loses his lease
    eventually(lambda: bench.get("/v1/gpu/status")[1]["leases"] == [], "the lease runs out")
    assert processes.identity(bench.proxy.pid) is not None
