"""A reader of the transition log gets every move once and in order, or is told that some are lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from imageworks.runtime.events import Moved
from imageworks.runtime.transitions import Transitions

Play = Callable[[Coroutine[Any, Any, None]], None]


def move(number: int) -> Moved:
    return Moved(f"m{number}", "model", "stopped", "starting", "asked for", {0: number})


async def take(events: AsyncIterator[bytes], count: int) -> list[bytes]:
    return [await anext(events) for _ in range(count)]


def subjects(events: list[bytes]) -> list[str]:
    return [json.loads(event.split(b"data: ")[1])["subject"] if b"event: moved" in event else "gap" for event in events]


def test_a_reader_gets_what_happens_from_when_it_came(play: Play) -> None:
    async def story() -> None:
        log = Transitions(life=7)
        log.note(move(1))
        events = log.follow()
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        assert not waiting.done()
        log.note(move(2))
        log.note(move(3))
        first = await waiting
        assert subjects([first, *await take(events, 1)]) == ["m2", "m3"]
        head, _, data = first.partition(b"data: ")
        assert head == b"id: 7-2\nevent: moved\n"
        assert data.endswith(b"}\n\n")
        told = json.loads(data)
        assert told.pop("at") > 0
        assert told == {
            "subject": "m2",
            "kind": "model",
            "before": "stopped",
            "after": "starting",
            "cause": "asked for",
            "tokens": {"0": 2},
        }

    play(story())


def test_a_reader_that_was_cut_off_goes_on_where_it_stopped(play: Play) -> None:
    async def story() -> None:
        log = Transitions(life=7)
        for number in range(1, 6):
            log.note(move(number))
        assert subjects(await take(log.follow("7-2"), 3)) == ["m3", "m4", "m5"]

    play(story())


def test_what_is_forgotten_is_told_as_a_gap(play: Play) -> None:
    async def story() -> None:
        log = Transitions(life=7, kept=2)
        for number in range(1, 6):
            log.note(move(number))
        assert subjects(await take(log.follow("7-1"), 3)) == ["gap", "m4", "m5"]
        assert subjects(await take(log.follow("7-3"), 2)) == ["m4", "m5"]

    play(story())


def test_an_id_of_another_life_or_of_nobody_is_a_gap(play: Play) -> None:
    async def story() -> None:
        for last in ("6-1", "7-99", "7-x", "7", "", "x-1"):
            log = Transitions(life=7)
            log.note(move(1))
            assert subjects(await take(log.follow(last), 2)) == ["gap", "m1"], last

    play(story())


def test_a_slow_reader_costs_the_ring_and_no_more(play: Play) -> None:
    async def story() -> None:
        log = Transitions(life=7, kept=3)
        events = log.follow()
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        log.note(move(1))
        assert subjects([await waiting]) == ["m1"]
        for number in range(2, 100):
            log.note(move(number))
        assert subjects(await take(events, 4)) == ["gap", "m97", "m98", "m99"]

    play(story())
