"""Connections to engines: kept alive, pooled, and read as HTTP.

Owns `Pool` (idle connections by address, the freshest first, none older than UPSTREAM_IDLE_S) and `Back`, one
connection with its parser. A connection is used again only after an answer that ended exactly where it should; one whose
length was not announced is followed by a rest, and by the connection's end where the engine is known to close it then. What
an answer means is its `Reader`'s concern.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sized
from functools import lru_cache
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

from imageworks.runtime.answer import CLOSED, in_words
from imageworks.runtime.wire.limits import CONNECT_S, REST_S, UPSTREAM_IDLE_S, WRITE_HIGH, WRITE_LOW
from imageworks.runtime.wire.outbox import Outbox

Address = tuple[str, int]
Fields = tuple[tuple[str, str], ...]
"""What of an answer's head may concern a client: lower-case names and values."""
_WANTED = {b"content-type": "content-type", b"content-encoding": "content-encoding", b"retry-after": "retry-after"}
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
_BODYLESS = (204, 304)
_FINAL = 200


class Reader(Protocol):
    """Who waits for an answer."""

    def answered(self, status: int, fields: Fields) -> None:
        """The head is read."""

    def feed(self, data: bytes, *, ended: bool) -> None:
        """A piece of the body as it came; `ended`: it was the last. Called once with `ended`, or `broken`."""

    def broken(self, reason: str) -> None:
        """The connection is of no use: nothing more will come."""

    def writable(self) -> None:
        """The engine takes more of a large body."""


@lru_cache(256)
def address(url: str) -> tuple[Address, str] | None:
    """Where a route's url leads, and the path before `/v1`; None for what only the slow path can reach."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.query or parts.username:
        return None
    return (parts.hostname, parts.port or 80), parts.path.rstrip("/")


class Pool:
    """Connections to all engines, and the `outbox` of small requests and answers. `close` ends those that are idle."""

    def __init__(self, served: Sized) -> None:
        self.outbox = Outbox(served)
        self._idle: dict[Address, list[Back]] = {}
        self._resting: deque[Back] = deque()

    def take(self, where: Address) -> Back | None:
        """An idle connection that its engine still keeps, the one used last."""
        now = time.monotonic()
        if self._resting:
            self._rested(now)
        idle = self._idle.get(where)
        while idle:
            back = idle.pop()
            if now - back.since < UPSTREAM_IDLE_S and not back.transport.is_closing():
                return back
            back.transport.abort()
        return None

    async def dial(self, where: Address) -> Back:
        """A new connection. Raises OSError, also TimeoutError after CONNECT_S."""
        async with asyncio.timeout(CONNECT_S):
            _, back = await asyncio.get_running_loop().create_connection(lambda: Back(self, where), *where)
            return back

    def put(self, back: Back) -> None:
        """A connection is idle from now."""
        back.since = time.monotonic()
        self._idle.setdefault(back.where, []).append(back)

    def rest(self, back: Back) -> None:
        """A connection is idle once it has rested."""
        back.since = time.monotonic() + REST_S
        self._resting.append(back)

    def _rested(self, now: float) -> None:
        resting = self._resting
        while resting and resting[0].since <= now:
            back = resting.popleft()
            self._idle.setdefault(back.where, []).append(back)

    def drop(self, back: Back) -> None:
        """A connection is gone."""
        idle = self._idle.get(back.where, [])
        if back in idle:
            idle.remove(back)

    def sweep(self) -> None:
        """Close what is too old to be used."""
        now = time.monotonic()
        self._rested(now)
        for where, idle in tuple(self._idle.items()):
            while idle and now - idle[0].since >= UPSTREAM_IDLE_S:
                idle.pop(0).transport.abort()
            if not idle:
                del self._idle[where]

    def close(self) -> None:
        """Close all that is idle."""
        for idle in (*self._idle.values(), self._resting):
            for back in idle:
                back.transport.abort()
        self._idle.clear()
        self._resting.clear()


class Back(asyncio.Protocol):
    """One connection to an engine. `reader` is set while it works for somebody, `sending` while a body is under way.

    `closes`: the engine ends it after an answer of unannounced length, whatever it says.
    """

    __slots__ = ("_chunked", "_ended", "_fields", "_final", "_framed", "_junk", "_keep", "_parser", "_pieces", "_pool", "_until_close", "closes", "reader",
                 "sending", "since", "transport", "where")  # fmt: skip
    transport: asyncio.Transport

    def __init__(self, pool: Pool, where: Address) -> None:
        self._pool, self.where, self.since = pool, where, 0.0
        self.reader: Reader | None = None
        self.sending = self.closes = False
        self._fields: list[tuple[str, str]] = []
        self._pieces: list[bytes] = []
        self._final = self._framed = self._chunked = self._ended = self._keep = self._junk = self._until_close = False
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(WRITE_HIGH, WRITE_LOW)

    def data_received(self, data: bytes) -> None:
        """A piece of an answer."""
        reader = self.reader
        if reader is None:
            self.transport.abort()  # nobody asked: what comes here can belong to no request
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(f"its answer is no HTTP: {error}")
            return
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self._ended:
            self._release()
            reader.feed(body, ended=True)
        else:
            reader.feed(body, ended=False)

    def _release(self) -> None:
        self.reader, self._ended, self._final = None, False, False
        if not self._keep or self.sending or self._junk or (self._chunked and self.closes):
            self.transport.abort()
        elif self._chunked:
            self._pool.rest(self)
        else:
            self._pool.put(self)

    def _break(self, reason: str) -> None:
        reader, self.reader = self.reader, None
        self.transport.abort()
        if reader is not None:
            reader.broken(reason)

    def connection_lost(self, exc: Exception | None) -> None:
        """The engine closed, or the connection broke."""
        reader, self.reader = self.reader, None
        if reader is None:
            self._pool.drop(self)
        elif self._until_close and exc is None:
            reader.feed(b"", ended=True)  # the one body whose end is the connection's
        else:
            reader.broken(in_words(exc) if exc else CLOSED)

    def pause_writing(self) -> None:
        """The engine takes no more for now."""

    def resume_writing(self) -> None:
        """The engine takes more."""
        if self.reader is not None:
            self.reader.writable()

    # what the parser finds

    def on_message_begin(self) -> None:
        """A head begins."""
        self._junk, self._framed, self._chunked = self._ended, False, False
        self._fields.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field."""
        name = name.lower()
        if name in _FRAMING:
            self._framed, self._chunked = True, self._chunked or name == b"transfer-encoding"
        elif (wanted := _WANTED.get(name)) is not None:
            self._fields.append((wanted, value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """A head ends; one of the 1xx kind announces another."""
        status = self._parser.get_status_code()
        self._final = status >= _FINAL
        if self._final and self.reader is not None and not self._junk:
            self._until_close = not self._framed and status not in _BODYLESS
            self.reader.answered(status, tuple(self._fields))

    def on_body(self, data: bytes) -> None:
        """A piece of the body, without its framing."""
        if not self._ended:  # what follows an answer belongs to nobody
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._final:
            self._ended, self._keep = True, self._parser.should_keep_alive()
