"""Fault F71: supervisord slow, hung, locked, gone or shutting down. What it did not say is read again, never assumed.

Where the real supervisord cannot be made to answer so, a stand-in on the same unix socket speaks its XML-RPC.
"""

from __future__ import annotations

import asyncio
import signal
import xmlrpc.client
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from imageworks import locations
from imageworks.runtime.backends import supervisor
from imageworks.runtime.backends.probe import bring_up, observe
from imageworks.runtime.backends.protocol import DriverError, UnansweredError
from imageworks.runtime.backends.supervisor import Supervised, Supervisor

from .conftest import Bench, eventually

Answer = Callable[[str, tuple[Any, ...]], Awaitable[Any]]


class Stand:
    """A supervisord of one program whose answers a test decides; `calls` are the methods asked.

    `call_s` is how long the client waits for one of them: short only where there is none.
    """

    def __init__(self, bench: Bench, answer: Answer, call_s: float = 10.0) -> None:
        self.bench, self.answer, self._call_s = bench, answer, call_s
        self.calls: list[str] = []

    async def __aenter__(self) -> Supervised:
        app = web.Application()
        app.router.add_post("/RPC2", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(locations.control_socket(self.bench.stack))).start()
        self._client = Supervisor(locations.control_socket(self.bench.stack), call_s=self._call_s)
        return Supervised(self._client, self.bench.route("a", 1, stop_timeout_s=1.0))

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        arguments, method = xmlrpc.client.loads(await request.text())
        assert method is not None
        self.calls.append(method.removeprefix("supervisor."))
        try:
            value = await self.answer(self.calls[-1], arguments)
        except xmlrpc.client.Fault as fault:
            return web.Response(text=xmlrpc.client.dumps(fault))
        return web.Response(text=xmlrpc.client.dumps((value,), methodresponse=True))


def info(state: str) -> dict[str, str]:
    return {"statename": state, "description": "as the test says"}


def test_f71_a_start_without_an_answer_is_settled_by_reading_the_state(bench: Bench) -> None:
    async def story() -> None:
        state = ["STOPPED"]

        async def answer(method: str, _arguments: object) -> Any:
            if method == "startProcess":
                state[0] = "RUNNING"  # it was done, and the answer never comes
                await asyncio.Event().wait()
            return info(state[0])

        stand = Stand(bench, answer, call_s=1.5)
        async with stand as program:
            await program.start()
        assert stand.calls == ["getProcessInfo", "startProcess", "getProcessInfo"]

    bench.play(story())


def test_f71_a_start_that_was_never_done_is_asked_again_and_already_started_is_no_error(bench: Bench) -> None:
    async def story() -> None:
        asked = 0

        async def answer(method: str, _arguments: object) -> Any:
            nonlocal asked
            if method == "startProcess":
                asked += 1
                if asked == 1:
                    await asyncio.Event().wait()
                raise xmlrpc.client.Fault(supervisor.ALREADY_STARTED, "ALREADY_STARTED: model-a")
            return info("STOPPED")

        async with Stand(bench, answer, call_s=1.5) as program:
            await program.start()
        assert asked == 2

    bench.play(story())


def test_f71_a_program_that_is_still_stopping_is_let_end_before_it_is_started(bench: Bench) -> None:
    async def story() -> None:
        states = iter(["STOPPING", "STOPPING", "STOPPED"])

        async def answer(method: str, _arguments: object) -> Any:
            return True if method == "startProcess" else info(next(states))

        stand = Stand(bench, answer)
        async with stand as program:
            await program.start()
        assert stand.calls == ["getProcessInfo"] * 3 + ["startProcess"]

    bench.play(story())


def test_f71_a_supervisor_that_is_shutting_down_says_nothing_about_its_programs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "SETTLE_S", 0.2)

    async def story() -> None:
        async def answer(_method: str, _arguments: object) -> Any:
            raise xmlrpc.client.Fault(supervisor.SHUTDOWN_STATE, "SHUTDOWN_STATE")

        async with Stand(bench, answer) as program:
            with pytest.raises(UnansweredError, match="shutting down"):
                await program.status()
            with pytest.raises(UnansweredError, match="shutting down"):
                await program.start()

    bench.play(story())


def test_f71_a_state_that_is_lost_counts_as_alive_until_it_is_known(bench: Bench) -> None:
    async def story() -> None:
        states = iter(["UNKNOWN", "UNKNOWN", "STOPPING", "STOPPED"])

        async def answer(method: str, _arguments: object) -> Any:
            return True if method == "stopProcess" else info(next(states))

        stand = Stand(bench, answer)
        async with stand as program:
            await program.stop()
        assert stand.calls.count("stopProcess") == 1

    bench.play(story())


def test_f71_a_wrong_password_is_told_as_such(bench: Bench) -> None:
    async def story() -> None:
        async def answer(_method: str, _arguments: object) -> Any:
            raise web.HTTPUnauthorized

        async with Stand(bench, answer) as program:
            with pytest.raises(DriverError, match="wants a password"):
                await program.status()

    bench.play(story())


def test_f71_a_hung_supervisor_makes_nothing_dead_and_a_stop_still_ends_the_tree(bench: Bench) -> None:
    bench.engine("a", "grandchild", stop_timeout_s=1.0)
    bench.supervise()
    assert bench.supervisor is not None
    hung = bench.supervisor

    async def story() -> None:
        async with bench.drivers() as drivers:
            await bring_up(drivers["a"], 20)
            hung.send_signal(signal.SIGSTOP)
            with pytest.raises(UnansweredError):
                await drivers["a"].status()
            assert await drivers["a"].ready(), "its own server answers"
            await drivers["a"].stop()
            assert bench.left("a") == ()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "CALL_S", 0.3)
        patch.setattr(Supervisor.__init__, "__defaults__", (0.3,))
        bench.play(story())


def test_f71_a_start_outlives_a_supervisor_that_gives_no_answer_meanwhile(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.engine("a", "frozen")
    freeze = bench.folder("a") / "freeze"
    freeze.touch()
    bench.supervise()
    assert bench.supervisor is not None
    hung = bench.supervisor

    async def story() -> None:
        async with bench.drivers() as drivers:
            coming = asyncio.create_task(bring_up(drivers["a"], 20))
            await asyncio.to_thread(eventually, lambda: bench.starts("a") == 1, "it is started")
            hung.send_signal(signal.SIGSTOP)
            await asyncio.to_thread(
                eventually, lambda: coming.done() or "looking again" in caplog.text, "no answer is noticed"
            )
            freeze.unlink()
            hung.send_signal(signal.SIGCONT)
            await coming
        assert bench.starts("a") == 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Supervisor.__init__, "__defaults__", (0.3,))
        bench.play(story())


def test_f71_programs_of_a_supervisor_that_was_killed_are_found_and_ended(bench: Bench) -> None:
    bench.engine("a", "grandchild")
    bench.supervise()
    assert bench.supervisor is not None
    killed = bench.supervisor

    async def story() -> None:
        async with bench.drivers() as drivers:
            await bring_up(drivers["a"], 20)
            killed.kill()
            killed.wait()
            with pytest.raises(DriverError, match="start it with: imageworks up"):
                await drivers["a"].status()
            assert len(bench.left("a")) == 2
            await drivers["a"].stop()
            assert bench.left("a") == ()

    bench.play(story())


def test_f03_what_is_being_stopped_is_let_end_not_taken_for_a_model_that_serves(bench: Bench) -> None:
    """Its end would look like a death in the new life, and be healed by a start that nobody wants."""
    bench.engine("a", "deaf")  # does not hear SIGTERM, and serves on
    bench.supervise()

    async def story() -> None:
        async with bench.drivers() as drivers:
            await bring_up(drivers["a"], 20)
            client = Supervisor(locations.control_socket(bench.stack))
            await client.call("stopProcess", "model-a", False)  # noqa: FBT003 - its positional `wait`
            await client.close()
            assert await observe(drivers["a"]) is None
            assert bench.left("a") == ()

    bench.play(story())


def test_f71_orphans_are_ended_before_a_new_supervisor_starts_the_program_again(bench: Bench) -> None:
    bench.engine("a", "grandchild")
    bench.supervise()
    assert bench.supervisor is not None

    async def first() -> None:
        async with bench.drivers() as drivers:
            await bring_up(drivers["a"], 20)

    async def second() -> None:
        async with bench.drivers() as drivers:
            assert await observe(drivers["a"]) is None
            await bring_up(drivers["a"], 20)

    bench.play(first())
    orphans = set(bench.left("a"))
    bench.supervisor.kill()
    bench.supervisor.wait()
    bench.supervise()
    bench.play(second())
    eventually(lambda: not orphans & set(bench.left("a")), "the orphans are gone")
    assert len(bench.left("a")) == 2
