"""The watch over models: what it looks at, whom it tells, and that one hanging look delays nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from imageworks.runtime import events as ev
from imageworks.runtime.backends.protocol import Look
from imageworks.runtime.health import FALL
from imageworks.runtime.progress import Progress
from imageworks.runtime.watch import Watch


@dataclass
class Model:
    """A model that says what the test wants."""

    answers: Look = field(default_factory=lambda: Look("ok"))
    token: bool | None = True
    looks: int = 0
    canaries: int = 0
    hangs: asyncio.Event | None = None

    async def look(self) -> Look:
        self.looks += 1
        if self.hangs is not None:
            await self.hangs.wait()
        return self.answers

    async def canary(self, timeout_s: float) -> bool | None:
        assert timeout_s > 0
        self.canaries += 1
        return self.token


class Drive:
    """The part of the drive that the watch uses."""

    def __init__(self, *names: str) -> None:
        self.progress = Progress()
        self.state: Any = SimpleNamespace(
            slots={name: SimpleNamespace(residency="ready", inflight=0) for name in names}
        )
        self.said: list[ev.Event] = []
        self.gone: set[str] = set()
        self.asked: list[str] = []

    def say(self, event: ev.Event) -> None:
        self.said.append(event)
        if isinstance(event, ev.Died):
            self.state.slots[event.model].residency = "stopping"

    async def report_dead(self, model: str, looks: int = 20) -> bool:
        self.asked.append(f"{model} {looks}")
        return model in self.gone


def play(story: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await story

    asyncio.run(bounded())


async def rounds(watch: Watch, count: int) -> None:
    """Rounds with the looks that they begin; the interval is nothing, so that every look is due."""
    for _ in range(count):
        await watch.once()
        for _ in range(5):
            await asyncio.sleep(0)


def test_a_model_that_answers_is_healthy_and_left_alone() -> None:
    async def story() -> None:
        drive, model = Drive("a"), Model()
        watch = Watch(drive, {"a": model}, {}, 0.0)
        assert watch.looked_s("a") is None
        await rounds(watch, 5)
        assert watch.vitals("a").verdict == "healthy"
        assert watch.looked_s("a") is not None
        assert (drive.said, model.canaries) == ([], 0)
        assert drive.asked == ["a 1"] * 5

    play(story())


def test_a_model_that_fails_often_enough_is_told_dead_once_with_the_reason() -> None:
    async def story() -> None:
        drive, model = Drive("a"), Model(Look("failing", "/health says 503"))
        watch = Watch(drive, {"a": model}, {}, 0.0)
        await rounds(watch, FALL + 5)
        assert drive.said == [ev.Died("a", "/health says 503")]
        assert model.looks == FALL

    play(story())


def test_a_server_elsewhere_is_looked_at_and_never_told_dead() -> None:
    async def story() -> None:
        drive, model = Drive("a"), Model(Look("absent", "nobody there"))
        watch = Watch(drive, {}, {"a": model}, 0.0)
        await rounds(watch, FALL + 2)
        assert watch.vitals("a").verdict == "dead"
        assert (drive.said, drive.asked) == ([], [])

    play(story())


def test_what_is_known_of_a_life_ends_with_it() -> None:
    async def story() -> None:
        drive, model = Drive("a"), Model(Look("failing", "bad"))
        watch = Watch(drive, {"a": model}, {}, 0.0)
        await rounds(watch, FALL - 1)
        drive.progress.asked("a")
        drive.state.slots["a"].residency = "stopping"
        await rounds(watch, 1)
        assert watch.vitals("a").verdict == "unknown"
        assert drive.progress.quiet_s("a") is None
        drive.state.slots["a"].residency = "ready"
        await rounds(watch, FALL - 1)
        assert drive.said == []

    play(story())


def test_a_process_that_is_gone_is_not_looked_at() -> None:
    async def story() -> None:
        drive, model = Drive("a"), Model()
        drive.gone.add("a")
        watch = Watch(drive, {"a": model}, {}, 0.0)
        await rounds(watch, 3)
        assert model.looks == 0

    play(story())


def test_a_model_that_sleeps_is_watched_but_not_looked_at() -> None:
    async def story() -> None:
        drive, model = Drive("a", "b"), Model()
        drive.state.slots["a"].residency, drive.state.slots["b"].residency = "asleep", "stopping"
        watch = Watch(drive, {"a": model, "b": model}, {}, 0.0)
        await rounds(watch, 2)
        assert drive.asked == ["a 1"] * 2
        assert model.looks == 0, "a look could wake it"

    play(story())


def test_a_look_that_hangs_delays_nobody_and_ends_with_the_watch() -> None:
    async def story() -> None:
        drive, stuck, well = Drive("a", "b"), Model(hangs=asyncio.Event()), Model()
        watch = Watch(drive, {"a": stuck, "b": well}, {}, 0.0)
        task = asyncio.create_task(watch.run())
        while well.looks < 5:  # noqa: ASYNC110 - the rounds have no event
            await asyncio.sleep(0)
        assert stuck.looks == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(asyncio.all_tasks()) == 1

    play(story())


def test_a_request_that_was_never_heard_of_costs_one_token_and_clears_the_doubt() -> None:
    async def story() -> None:
        drive, model = Drive("a"), Model()
        watch = Watch(drive, {"a": model}, {}, 0.0)
        await rounds(watch, 2)
        drive.progress.asked("a")
        await rounds(watch, 5)
        assert model.canaries == 1
        model.token = False
        drive.progress.asked("a")
        await rounds(watch, FALL)
        assert drive.said == [ev.Died("a", "its health endpoint answers, but it computes no token")]

    play(story())


def test_a_round_that_breaks_is_not_the_last() -> None:
    class Breaking(Drive):
        async def report_dead(self, model: str, looks: int = 20) -> bool:
            await super().report_dead(model, looks)
            raise RuntimeError("nobody thought of this")

    async def story() -> None:
        drive = Breaking("a")
        task = asyncio.create_task(Watch(drive, {"a": Model()}, {}, 0.0).run())
        while len(drive.asked) < 3:  # noqa: ASYNC110 - the rounds have no event
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    play(story())


def test_a_look_that_breaks_does_not_end_the_watch() -> None:
    class Broken(Model):
        async def look(self) -> Look:
            self.looks += 1
            raise RuntimeError("nobody thought of this")

    async def story() -> None:
        drive, model = Drive("a"), Broken()
        watch = Watch(drive, {"a": model}, {}, 0.0)
        await rounds(watch, 4)
        assert model.looks == 4
        assert watch.vitals("a").verdict == "unknown"

    play(story())
