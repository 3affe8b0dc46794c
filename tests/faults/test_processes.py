"""Faults of processes (F4, F7, F14, F16-F19): what is killed is a real process under a real supervisord."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

import pytest

from imageworks import contract
from imageworks.runtime import events as ev
from imageworks.runtime import processes
from imageworks.runtime.backends.probe import bring_up
from imageworks.runtime.backends.protocol import DriverError, StartError
from imageworks.runtime.drive import Drive
from imageworks.runtime.errors import ApiError
from imageworks.runtime.lives import FATAL_AFTER, FATAL_S

from .conftest import Bench, eventually


def engine_pid(bench: Bench, name: str) -> int:
    return int((bench.folder(name) / "starts").read_text().split()[-1])


def test_f04_an_idle_backend_that_is_killed_is_noticed_and_started_once_by_the_next_request(bench: Bench) -> None:
    bench.engine("a", "serve")
    bench.supervise()
    bench.serve()
    assert bench.chat("a")[0] == 200
    os.kill(engine_pid(bench, "a"), signal.SIGKILL)
    eventually(lambda: bench.state("a") != "ready", "the death is noticed", 15)
    # a model that died rests a moment before the next start
    assert eventually(lambda: bench.chat("a")[0] == 200, "the next request starts it")
    assert bench.starts("a") == 2


def test_f07_workers_that_outlive_their_server_are_ended_before_the_next_start(bench: Bench) -> None:
    bench.engine("a", "grandchild")
    bench.supervise()

    async def story() -> None:
        async with bench.drivers() as drivers:
            await bring_up(drivers["a"], 20)
            (worker,) = bench.ledger("a")
            server = engine_pid(bench, "a")
            assert set(await drivers["a"].pids()) == {server, worker}
            os.kill(server, signal.SIGKILL)
            while (await drivers["a"].status()).alive:  # supervisord needs a moment to reap it
                pass
            assert bench.ledger("a") == [worker]
            await drivers["a"].stop()
            assert bench.ledger("a") == []
            assert await drivers["a"].pids() == ()

    bench.play(story())


def test_f07_workers_of_an_earlier_life_are_ended_when_nobody_stopped_them(bench: Bench) -> None:
    bench.engine("a", "grandchild")
    bench.supervise()

    async def story() -> None:
        async with bench.drivers() as drivers:
            await bring_up(drivers["a"], 20)
            (worker,) = bench.ledger("a")
            os.kill(engine_pid(bench, "a"), signal.SIGKILL)
            while (await drivers["a"].status()).alive:  # supervisord needs a moment to reap it
                pass
            await bring_up(drivers["a"], 20)
            assert worker not in bench.ledger("a")
            assert len(bench.ledger("a")) == 1
            await drivers["a"].stop()

    bench.play(story())


def test_f14_a_backend_that_ignores_sigterm_is_killed_at_the_bound_with_its_whole_tree(bench: Bench) -> None:
    bench.engine("a", "deaf", stop_s=1)
    bench.engine("b", "grandchild", stop_s=1)
    bench.supervise()

    async def story() -> None:
        async with bench.drivers() as drivers:
            for name in ("a", "b"):
                await bring_up(drivers[name], 20)
                begin = time.monotonic()
                await drivers[name].stop()
                assert time.monotonic() - begin < 15
                assert bench.left(name) == ()
                assert bench.ledger(name) == []

    bench.play(story())


def test_f15_processes_that_do_not_end_are_named_with_their_pids(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.engine("a", "grandchild")
    bench.supervise()
    # a process in an uninterruptible call cannot be made without a broken driver: the kernel's refusal is played
    monkeypatch.setattr(processes, "end", lambda find, _grace_s: tuple(find()))

    async def story() -> None:
        async with bench.drivers() as drivers:
            await bring_up(drivers["a"], 20)
            (worker,) = bench.ledger("a")
            with pytest.raises(DriverError, match=f"processes do not end: pid {worker}") as caught:
                await drivers["a"].stop()
            assert caught.value.pids == (worker,)

    bench.play(story())


@pytest.mark.parametrize(("mode", "code"), [("exit0", "F17"), ("dies", "F16")])
def test_f16_f17_a_backend_that_ends_at_start_is_not_tried_without_end_and_says_why(
    bench: Bench, mode: str, code: str
) -> None:
    del code
    bench.engine("a", mode)
    bench.supervise()
    bench.serve(bench.policy("a"))
    status, answer = bench.chat("a")
    assert status == 503
    assert "RuntimeError: the engine core failed to start" in answer["error"]["message"]
    # every try is counted by the program itself: the pause between them grows from 5 s
    begin = time.monotonic()
    eventually(lambda: time.monotonic() - begin > 1.0, "a second passes")
    assert bench.starts("a") <= 2
    status, answer = bench.chat("a")
    assert status == 503


def resident(bench: Bench, name: str) -> contract.RouteTable:
    settings = contract.ProxySettings("127.0.0.1", 1, 1 << 20, 16, 30.0, 5.0)
    return contract.RouteTable(
        "t", "development", "p", "b", settings, bench.policy(name), (), dict(bench.routes), {}, {"development": {}}
    )


def test_f16_after_six_failed_starts_a_model_is_left_alone_until_its_rest_is_over(bench: Bench) -> None:
    """Real starts under a real supervisord; the pauses between them, 155 s, pass on a clock that is put in."""
    bench.engine("a", "dies")
    bench.supervise()
    now = 1000.0

    async def tried(drive: Drive, times: int) -> None:
        while drive.state.slots["a"].failures < times or drive.state.slots["a"].residency != "failed":  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def refused(drive: Drive, request: str) -> ApiError:
        with pytest.raises(ApiError) as caught:
            await drive.acquire(request, ("a",), now + 20)
        return caught.value

    async def story() -> None:
        nonlocal now
        async with bench.drivers() as drivers:
            drive = Drive(resident(bench, "a"), drivers, lambda: now)
            await drive.open()
            for number in range(1, FATAL_AFTER):
                await tried(drive, number)
                assert bench.starts("a") == number
                now = drive.state.slots["a"].retry_at
                drive.say(ev.Tick())
            waiting = await asyncio.gather(*(refused(drive, name) for name in "xyz"))
            assert {(each.status, each.code) for each in waiting} == {(503, "model_fatal")}
            await tried(drive, FATAL_AFTER)
            told = await refused(drive, "later")
            assert (told.status, told.code) == (503, "model_fatal")
            assert "failed 6 times in a row: RuntimeError: the engine core failed to start" in told.message
            now += FATAL_S - 1
            drive.say(ev.Tick())
            assert drive.state.slots["a"].fatal
            assert bench.starts("a") == FATAL_AFTER
            now += 1
            drive.say(ev.Tick())
            assert drive.state.slots["a"].residency == "starting"
            await tried(drive, FATAL_AFTER)
            assert bench.starts("a") == FATAL_AFTER + 1
            await drive.close()

    bench.play(story())


def test_f17_a_backend_that_ends_with_code_0_while_it_should_run_is_started_again(bench: Bench) -> None:
    folder = bench.engine("a", "late")
    bench.supervise()
    bench.serve(bench.policy("a"))
    eventually(lambda: bench.state("a") == "ready", "it is loaded at start")
    (folder / "die").touch()
    eventually(lambda: bench.state("a") != "ready", "the end is noticed", 15)
    (folder / "die").unlink()
    eventually(lambda: bench.state("a") == "ready", "what should run is started again")
    assert bench.starts("a") == 2


def test_f18_a_number_that_was_given_to_a_stranger_is_not_signalled(bench: Bench) -> None:
    stranger = bench.spawn(sys.executable, "-c", "import time; time.sleep(600)")
    known = processes.identity(stranger.pid)
    assert known is not None
    earlier = type(known)(known.pid, known.start - 1)
    assert not processes.send(earlier, signal.SIGKILL)
    assert processes.end(lambda: (earlier,), 0.1) == ()
    assert stranger.poll() is None


def test_f19_an_engine_that_the_oom_killer_takes_is_swept_and_the_reason_says_so(bench: Bench) -> None:
    bench.engine("a", "grandchild")
    bench.supervise()
    bench.serve()
    assert bench.chat("a")[0] == 200
    (worker,) = bench.ledger("a")
    os.kill(engine_pid(bench, "a"), signal.SIGKILL)  # what the OOM killer sends
    eventually(lambda: processes.look(worker) is None, "its worker is ended")
    told = eventually(lambda: bench.health("a")["reason"], "the reason is told")
    assert "a signal ended it, as the kernel does when memory runs out" in told


def test_a_start_that_dies_is_noticed_at_once_with_its_root_cause(bench: Bench) -> None:
    bench.engine("a", "dies")
    bench.supervise()

    async def story() -> None:
        async with bench.drivers() as drivers:
            begin = time.monotonic()
            with pytest.raises(StartError, match=r"^RuntimeError: the engine core failed to start$"):
                await bring_up(drivers["a"], 20)
            assert time.monotonic() - begin < 15

    bench.play(story())
