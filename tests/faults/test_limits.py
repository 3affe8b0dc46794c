"""Faults of the machine around the proxy (F60, F64-F68): disks that are full, clocks that jump, limits that are reached.

Limits are set from outside on the running proxy (prlimit(2)); clocks are put in by hand where no test may turn the
machine's own.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from imageworks import contract
from imageworks.runtime import events as ev
from imageworks.runtime import processes
from imageworks.runtime.drive import Drive
from imageworks.runtime.leases import LeaseAsk
from imageworks.runtime.ledger import Ledger
from imageworks.runtime.steady import ROUND_S, SteadyClock

from .conftest import BAD_ENGINE, Bench, eventually

CARD = (contract.Gpu(0, 2000, 3000),)
LEASE = {"vram_mib": 500, "owner": "trainer"}
Play = Callable[[Coroutine[Any, Any, None]], None]


def limit(bench: Bench, what: int, soft: int) -> tuple[int, int]:
    """Lower a soft limit of the running proxy; returns what it was."""
    assert bench.proxy is not None
    before = resource.prlimit(bench.proxy.pid, what)
    resource.prlimit(bench.proxy.pid, what, (soft, before[1]))
    return before


def lift(bench: Bench, what: int, before: tuple[int, int]) -> None:
    assert bench.proxy is not None
    resource.prlimit(bench.proxy.pid, what, before)


@pytest.fixture
def served(bench: Bench) -> Bench:
    """One engine that is up."""
    bench.engine("a", "serve")
    bench.supervise()
    bench.serve(gpus=CARD, body_limit_bytes=256 << 20)
    assert bench.chat("a")[0] == 200
    return bench


def test_f60_a_disk_that_takes_nothing_refuses_new_leases_and_serves_on(served: Bench) -> None:
    kept = served.post("/v1/gpu/lease", LEASE)[1]
    before = limit(served, resource.RLIMIT_FSIZE, 1)  # every write to a file fails, as on a full disk
    code, told = served.post("/v1/gpu/lease", LEASE)
    assert (code, told["error"]["code"]) == (503, "state_unwritable"), told
    assert served.chat("a")[0] == 200
    renew = f"/v1/gpu/lease/{kept['lease_id']}/renew"
    assert served.post(renew, {"token": kept["token"]})[0] == 200
    code, ready = served.get("/readyz")
    assert code == 200
    assert "the state cannot be written" in ready["degraded"][0]
    assert [each["lease_id"] for each in served.get("/v1/gpu/status")[1]["leases"]] == [kept["lease_id"]]
    lift(served, resource.RLIMIT_FSIZE, before)
    assert served.get("/readyz")[1]["degraded"] == []
    later = served.post("/v1/gpu/lease", LEASE)
    assert later[0] == 200
    assert later[1]["token"] > kept["token"]


def test_f60_a_start_on_a_state_folder_that_is_no_folder_serves_and_says_so(bench: Bench) -> None:
    (bench.stack / "state").write_text("in the way")
    bench.engine("a", "serve")
    bench.supervise()
    bench.serve(gpus=CARD, environ={"IMAGEWORKS_STATE": str(bench.stack / "state")})
    assert bench.chat("a")[0] == 200
    assert bench.post("/v1/gpu/lease", LEASE)[0] == 503
    assert bench.get("/readyz")[1]["degraded"]
    (bench.stack / "state").unlink()
    assert bench.post("/v1/gpu/lease", LEASE)[0] == 200


def test_two_runtimes_cannot_have_one_state_folder(served: Bench) -> None:
    (port,) = served.ports(1)
    text = (served.stack / "routes.json").read_text().replace(f'"port": {served.port}', f'"port": {port}')
    other = served.stack / "other.json"
    other.write_text(text)
    words = ["-m", "imageworks", "serve", "--routes", str(other), "--stack", str(served.stack)]
    log = served.stack / "other.log"
    assert served.spawn(sys.executable, *words, output=log).wait(20) == 1
    assert served.proxy is not None
    assert f"another runtime (pid {served.proxy.pid}) uses the state folder" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert served.chat("a")[0] == 200


# clocks


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def table(bench: Bench) -> contract.RouteTable:
    settings = contract.ProxySettings("127.0.0.1", 1, 1 << 20, 16, 30.0, 5.0)
    return contract.RouteTable(
        "t", "development", "p", "b", settings, bench.policy(), CARD, dict(bench.routes), {}, {"development": {}}
    )


def acquire(drive: Drive, name: str, now: float) -> Coroutine[Any, Any, Any]:
    return drive.leases.ask(ev.Acquire(f"c-{name}", LeaseAsk(name, "me", 100, ttl_s=30.0), now + 5))


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0, 3600.5])
def test_f64_a_wall_clock_that_jumps_changes_no_lease_and_no_order_of_tokens(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    async def story() -> None:
        state = bench.stack / "state"
        ledger = Ledger(state)
        drive = Drive(table(bench), {}, ledger=ledger, kept=ledger.open())
        await drive.open()
        first = await acquire(drive, "first", drive.clock())
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + jump_s)
        drive.say(ev.Tick())
        assert list(drive.state.leases) == [first.id]
        second = await acquire(drive, "second", drive.clock())
        await drive.close()
        ledger.close()
        again = Ledger(state, wall=lambda: real() + jump_s)
        later = Drive(table(bench), {}, ledger=again, kept=again.open())
        await later.open()
        assert sorted(later.state.leases) == sorted((first.id, second.id))
        third = await acquire(later, "third", later.clock())
        assert first.token < second.token < third.token
        await later.close()
        again.close()

    bench.play(story())


def test_f65_after_a_standstill_nobody_loses_a_lease_before_he_could_be_heard(bench: Bench) -> None:
    async def story() -> None:
        hand = Hand()
        drive = Drive(table(bench), {}, SteadyClock(hand))
        await drive.open()
        lease = await acquire(drive, "a", drive.clock())
        hand.now += 3600
        drive.say(ev.Tick())
        assert list(drive.state.leases) == [lease.id]
        for _ in range(int(ROUND_S)):
            hand.now += 1
            drive.beat()
            drive.say(ev.Tick())
        await drive.leases.ask(ev.Renew("r", lease.id, lease.token))
        for _ in range(29):
            hand.now += 1
            drive.beat()
            drive.say(ev.Tick())
        assert list(drive.state.leases) == [lease.id]
        for _ in range(2):
            hand.now += 1
            drive.beat()
            drive.say(ev.Tick())
        while drive.state.leases:  # noqa: ASYNC110 - its processes are looked for in a thread
            await asyncio.sleep(0.01)
        await drive.close()

    bench.play(story())


# limits


def test_f66_without_file_descriptors_the_proxy_sheds_and_recovers(served: Bench) -> None:
    assert served.proxy is not None
    used = len(list(Path(f"/proc/{served.proxy.pid}/fd").iterdir()))
    before = limit(served, resource.RLIMIT_NOFILE, used + 3)
    clients = []
    for _ in range(40):
        client = socket.create_connection(("127.0.0.1", served.port), timeout=30)
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        clients.append(client)
    assert clients[0].recv(1000).startswith(b"HTTP/1.1 200")
    for client in clients:
        client.close()
    lift(served, resource.RLIMIT_NOFILE, before)
    assert eventually(lambda: served.chat("a")[0] == 200, "it serves again", 30)
    assert served.proxy.poll() is None
    assert served.starts("a") == 1


@contextmanager
def no_process(bench: Bench, tool: Callable[[str], str]) -> Iterator[None]:
    """Inside, neither the proxy nor supervisord may start a process or a thread more."""

    def allow(soft: int) -> None:
        for process in (bench.proxy, bench.supervisor):
            assert process is not None
            bench.spawn(tool("prlimit"), f"--pid={process.pid}", f"--nproc={soft}:").wait(10)
            told = Path(f"/proc/{process.pid}/limits").read_text()
            assert re.search(rf"Max processes +{'unlimited' if soft == -1 else soft} ", told)

    allow(0)
    yield
    allow(resource.getrlimit(resource.RLIMIT_NPROC)[0])


def test_f67_where_no_process_can_be_started_what_runs_is_served_and_what_does_not_is_told(
    bench: Bench, tool: Callable[[str], str]
) -> None:
    bench.bind(tool)
    for name in "abcd":
        bench.engine(name, "serve")
    bench.supervise()
    bench.serve()
    assert bench.chat("a")[0] == 200
    with no_process(bench, tool):
        for name in "bcd":
            code, told = bench.chat(name)
            assert (code, told["error"]["code"]) == (503, "start_failed")
            assert bench.chat("a")[0] == 200
        assert [bench.starts(name) for name in "abcd"] == [1, 0, 0, 0]
    for name in "bcd":
        assert eventually(lambda: bench.chat(name)[0] == 200, "it starts when it can")  # noqa: B023
    assert [bench.starts(name) for name in "abcd"] == [1, 1, 1, 1]
    assert bench.proxy is not None
    assert bench.proxy.poll() is None


def test_f67_where_no_process_can_be_started_memory_is_not_measured_until_it_can(
    bench: Bench, nvml_library: Path, tool: Callable[[str], str]
) -> None:
    bench.bind(tool)
    bench.engine("a", "serve", gpu_mib={"0": 1000})
    (bench.stack / "nvml").write_text(f"gpu 4000 -1 8 9 GPU-a One\nmore {bench.folder('a')}\n")
    bench.supervise()
    bench.serve(gpus=CARD, environ={"LD_LIBRARY_PATH": str(nvml_library), "FAKE_NVML": str(bench.stack / "nvml")})
    assert bench.chat("a")[0] == 200

    def free() -> int:
        mib: int = bench.get("/v1/gpu/status")[1]["gpus"][0]["free_mib"]
        return mib

    eventually(lambda: free() == 1000, "its bytes are seen")
    with no_process(bench, tool):
        assert bench.proxy is not None
        for child in samplers(bench.proxy.pid):
            os.kill(child, signal.SIGKILL)
        eventually(lambda: free() == 0, "nothing more is granted")
        assert bench.chat("a")[0] == 200
    eventually(lambda: free() == 1000, "it is measured again")
    assert bench.starts("a") == 1


def samplers(proxy: int) -> list[int]:
    """The children of the proxy that read the cards."""
    return [each.pid for each in processes.everything().values() if each.parent == proxy]


def test_f67_a_model_that_cannot_be_started_is_said_to_be_and_starts_later(bench: Bench) -> None:
    folder = bench.engine("a", "serve")
    engine = folder / "engine"
    bench.routes.clear()
    bench.program("a", str(engine), "PORT", "served-a", "serve", str(folder))
    bench.supervise()
    bench.serve()
    code, told = bench.chat("a")
    assert code == 503, told
    engine.write_text(f'#!/bin/sh\nexec {sys.executable} {BAD_ENGINE} "$@"\n')
    engine.chmod(0o700)
    assert eventually(lambda: bench.chat("a")[0] == 200, "it starts when it can")


def test_f68_a_body_that_memory_does_not_suffice_for_is_shed_and_others_are_served(served: Bench) -> None:
    assert served.proxy is not None
    size = int(Path(f"/proc/{served.proxy.pid}/statm").read_text().split()[0]) * resource.getpagesize()
    before = limit(served, resource.RLIMIT_AS, size + (48 << 20))
    code, _ = served.chat("a", padding="x" * (200 << 20))
    assert code in (0, 413, 503)
    assert served.chat("a")[0] == 200
    lift(served, resource.RLIMIT_AS, before)
    assert served.chat("a", padding="x" * (20 << 20))[0] in (200, 400)
    assert served.proxy.poll() is None
