"""Faults of processes (F4, F7, F14, F16-F19): what is killed is a real process under a real supervisord."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from imageworks.runtime import processes
from imageworks.runtime.backends.probe import bring_up
from imageworks.runtime.backends.protocol import DriverError, StartError

from .conftest import Bench, eventually


def engine_pid(bench: Bench, name: str) -> int:
    return int((bench.folder(name) / "starts").read_text().split()[-1])


def test_f04_an_idle_backend_that_is_killed_is_noticed_and_started_once_by_the_next_request(bench: Bench) -> None:
    bench.engine("a", "serve")
    bench.supervise()
    bench.serve()
    assert bench.chat("a")[0] == 200
    os.kill(engine_pid(bench, "a"), signal.SIGKILL)
    eventually(lambda: bench.state("a") != "ready", "the death is noticed", 5)
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
                assert time.monotonic() - begin < 6
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


def test_f17_a_backend_that_ends_with_code_0_while_it_should_run_is_started_again(bench: Bench) -> None:
    folder = bench.engine("a", "late")
    bench.supervise()
    bench.serve(bench.policy("a"))
    eventually(lambda: bench.state("a") == "ready", "it is loaded at start")
    (folder / "die").touch()
    eventually(lambda: bench.state("a") != "ready", "the end is noticed", 5)
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
            assert time.monotonic() - begin < 5

    bench.play(story())
