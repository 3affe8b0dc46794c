"""The loop between the scheduler and the world, with an engine that obeys at once and a clock the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from imageworks.runtime.backends.protocol import Status
from imageworks.runtime.drive import Drive
from imageworks.runtime.events import Finish, Tick


class Obedient:
    """An engine that is there as soon as it is asked for; `gone` is set when it was stopped."""

    def __init__(self) -> None:
        self.alive = False
        self.gone = asyncio.Event()

    async def start(self) -> None:
        self.alive = True

    async def stop(self) -> None:
        self.alive = False
        self.gone.set()

    async def status(self) -> Status:
        return Status(self.alive, "here" if self.alive else "gone")

    async def ready(self) -> bool:
        return self.alive

    def log(self) -> str:
        return ""


class Clock:
    """Says the time the test set, then moves on by `drift` each time it is read."""

    def __init__(self) -> None:
        self.now, self.drift = 100.0, 0.0

    def __call__(self) -> float:
        now = self.now
        self.now += self.drift
        return now


def test_a_moment_that_passes_while_the_timer_is_set_is_not_lost(
    route: Callable[..., Any], table: Callable[..., Any], play: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """The unload falls due between the step (a hair before) and the setting of the timer (a hair after)."""

    async def story() -> None:
        engine, clock = Obedient(), Clock()
        drive = Drive(table(route("a", 1, grace_s=10.0), port=2), {"a": engine}, clock)
        await drive.open()
        assert await drive.acquire("r1", ("a",), 1000.0) == "a"
        drive.say(Finish("r1"))
        clock.now, clock.drift = 109.9999, 0.001
        drive.say(Tick())
        await engine.gone.wait()
        await drive.close()

    play(story())
