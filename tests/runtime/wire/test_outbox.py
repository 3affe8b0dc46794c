"""Writes of one turn of the loop are made together, in their order, and never after the end of a connection."""

from __future__ import annotations

import asyncio
from typing import Any

from imageworks.runtime.wire.outbox import FEW, Outbox


class Recorder:
    """Takes down what is written to it."""

    def __init__(self, log: list[tuple[str, bytes]], name: str) -> None:
        self._log, self._name, self.closing = log, name, False

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        self._log.append((self._name, data))


def test_many_writes_of_a_turn_come_at_its_end_in_their_order() -> None:
    async def story() -> None:
        log: list[tuple[str, bytes]] = []
        outbox = Outbox(range(FEW))
        one, other, gone = (Recorder(log, name) for name in ("one", "other", "gone"))
        made: Any = (one, other, gone, one)
        for number, transport in enumerate(made):
            outbox.post(transport, b"%d" % number)
        gone.closing = True
        assert log == []
        await asyncio.sleep(0)
        assert log == [("one", b"0"), ("other", b"1"), ("one", b"3")]

    asyncio.run(story())


def test_what_is_flushed_is_written_now_and_once() -> None:
    async def story() -> None:
        log: list[tuple[str, bytes]] = []
        outbox = Outbox(range(FEW))
        transport: Any = Recorder(log, "one")
        outbox.post(transport, b"a")
        outbox.flush()
        assert log == [("one", b"a")]
        outbox.post(transport, b"b")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert log == [("one", b"a"), ("one", b"b")]

    asyncio.run(story())


def test_where_few_are_served_a_write_is_made_at_once_but_never_before_an_earlier_one() -> None:
    async def story() -> None:
        log: list[tuple[str, bytes]] = []
        served = list(range(FEW))
        outbox = Outbox(served)
        transport: Any = Recorder(log, "one")
        outbox.post(transport, b"early")
        served.pop()
        outbox.post(transport, b"late")
        assert log == []
        outbox.flush()
        outbox.post(transport, b"at once")
        assert [data for _, data in log] == [b"early", b"late", b"at once"]

    asyncio.run(story())
