"""When the GPUs are looked at, and which look counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from imageworks.contract import Gpu
from imageworks.runtime.events import Measured, Reading
from imageworks.runtime.gpus import Gpus, Look
from imageworks.runtime.holders import Holders
from imageworks.runtime.leases import Lease, LeaseAsk
from imageworks.runtime.measuring import Measuring

Make = Callable[..., Any]
Play = Callable[[Coroutine[Any, Any, None]], None]
NOBODY = 4_000_000


class Played(Gpus):
    """Looks that take until `go_on`, and say what was set when they began."""

    def __init__(self) -> None:
        super().__init__({0: "GPU-a"})
        self.reading: Reading | None = Reading(1000, 100)
        self.looks = 0
        self.untold: frozenset[int] = frozenset()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.begun = asyncio.Event()

    async def look(self) -> Look:
        self.looks += 1
        found: Mapping[int, Reading | None] = {0: self.reading}
        self.begun.set()
        await self.go_on.wait()
        return Look(found, untold=self.untold)


def measuring(table: Make, route: Make, gpus: Gpus, *routes: Any) -> tuple[Measuring, Holders]:
    holders = Holders(lambda _lease: None)
    made = table(*(routes or (route("a", gpu_mib={"0": 100}),)), gpus=(Gpu(0, 900, 1000),))
    return Measuring(made, gpus, holders), holders


def test_a_look_that_began_before_the_stop_proves_nothing(table: Make, route: Make, play: Play) -> None:
    async def story() -> None:
        gpus = Played()
        measures, _ = measuring(table, route, gpus)
        gpus.go_on.clear()
        looking = asyncio.create_task(measures.once())
        await gpus.begun.wait()
        gpus.reading = Reading(1000, 700)
        measures.moved()
        gpus.go_on.set()
        measured = await looking
        assert measured is not None
        assert measured.readings[0] == Reading(1000, 700, 0)
        assert gpus.looks == 2

    play(story())


def test_before_the_first_reading_nothing_is_said_and_a_silence_after_it_is(
    table: Make, route: Make, play: Play
) -> None:
    async def story() -> None:
        gpus = Played()
        measures, _ = measuring(table, route, gpus)
        gpus.reading = None
        assert await measures.once() is None
        assert await measures.readings() is None
        gpus.reading = Reading(1000, 100)
        assert await measures.once() == Measured({0: Reading(1000, 100, 0)})
        gpus.reading = None
        assert await measures.once() == Measured({0: None})
        assert await measures.readings() == {0: None}

    play(story())


def test_a_move_is_looked_at_at_once_and_not_at_the_next_round(table: Make, route: Make, play: Play) -> None:
    async def story() -> None:
        gpus = Played()
        measures, _ = measuring(table, route, gpus)
        seen: asyncio.Queue[Measured] = asyncio.Queue()
        running = asyncio.create_task(measures.run(seen.put_nowait, lambda: False))
        await seen.get()
        begin = asyncio.get_running_loop().time()
        measures.moved()
        await seen.get()
        assert asyncio.get_running_loop().time() - begin < 1.5  # the rhythm is two seconds
        running.cancel()

    play(story())


def test_strangers_are_told_by_pid_only_where_all_bytes_of_ours_have_a_pid(
    table: Make, route: Make, play: Play
) -> None:
    async def story() -> None:
        gpus = Played()
        gpus.reading = Reading(1000, 100, None, {1: 100})
        measures, holders = measuring(table, route, gpus)

        async def foreign(of: Measuring) -> int | None:
            measured = await of.once()
            assert measured is not None
            reading = measured.readings[0]
            assert reading is not None
            return reading.foreign_mib

        assert await foreign(measures) == 100
        gpus.untold = frozenset({0})
        assert await foreign(measures) is None
        gpus.untold = frozenset()
        holders.watch(Lease("l", LeaseAsk("r", "o", 1), "active", {0: 1}, {0: "GPU-a"}, 0.0))
        assert await foreign(measures) is None
        holders.forget("l")
        gpus.reading = Reading(1000, 100, None, {NOBODY: 100})
        assert await foreign(measures) is None
        attached, _ = measuring(table, route, gpus, route("o", program=None, backend="ollama", gpu_mib={"0": 100}))
        gpus.reading = Reading(1000, 100, None, {1: 100})
        assert await foreign(attached) is None

    play(story())
