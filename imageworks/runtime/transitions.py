"""The transition log: every move of a model or a lease, in the order it happened, for who looks on.

Owns the bounded memory of `Moved` effects and their ids, by which a reader goes on where it stopped, also after it was
cut off. An id names the life of the proxy too: after a restart a reader begins anew and is told so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator

import msgspec

from imageworks.runtime.events import Moved

LOG = logging.getLogger(__name__)
KEPT = 1024


class Transitions:
    """The last `KEPT` moves. `life` tells this proxy's ids from those of an earlier one."""

    def __init__(self, life: int | None = None, kept: int = KEPT) -> None:
        self._life = int(time.time() * 1000) if life is None else life
        self._moves: deque[tuple[int, bytes]] = deque(maxlen=kept)
        self._next = 1
        self._news = asyncio.Event()

    def note(self, moved: Moved) -> None:
        """Take down one move and log it."""
        tokens = f", tokens {dict(moved.tokens)}" if moved.tokens else ""
        LOG.info("%s %s: %s -> %s (%s%s)", moved.kind, moved.subject, moved.before, moved.after, moved.cause, tokens)
        data = msgspec.json.encode({"at": time.time(), **msgspec.to_builtins(moved, str_keys=True)})
        self._moves.append((self._next, data))
        self._next += 1
        self._news.set()
        self._news = asyncio.Event()

    async def follow(self, last_id: str | None = None) -> AsyncIterator[bytes]:
        """Server-sent events from after `last_id`, or from now; a `gap` event where some are lost."""
        place, gap = self._place(last_id)
        if gap:
            yield b"event: gap\ndata: {}\n\n"
        while True:
            news = self._news
            if self._moves and self._moves[0][0] > place + 1:
                place = self._moves[0][0] - 1
                yield b"event: gap\ndata: {}\n\n"
            for number, data in tuple(self._moves):
                if number > place:
                    place = number
                    yield b"id: %d-%d\nevent: moved\ndata: %s\n\n" % (self._life, number, data)
            await news.wait()

    def _place(self, last_id: str | None) -> tuple[int, bool]:
        """The number after which a reader goes on, and whether it missed something that nobody can tell it."""
        if last_id is None:
            return self._next - 1, False
        life, _, number = last_id.partition("-")
        if life == str(self._life) and number.isdecimal() and int(number) < self._next:
            return int(number), False
        return (self._moves[0][0] if self._moves else self._next) - 1, True
