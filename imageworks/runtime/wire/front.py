"""One client connection: requests in, one after the other, each to the speed that can serve it.

Owns the reading of heads and bodies with their limits and deadlines, refusals on the level of HTTP (each ends the
connection, so that no byte is ever taken for what it is not), the order of pipelined requests, and the moment a client
is gone. Judges no request and forwards nothing itself.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Protocol

from imageworks.runtime.access import request_id
from imageworks.runtime.elide import Body
from imageworks.runtime.errors import ApiError, too_large
from imageworks.runtime.wire import writer
from imageworks.runtime.wire.body import SPARE_LEAST, Filling, Spares, transport_of
from imageworks.runtime.wire.chunks import Chunks
from imageworks.runtime.wire.handoff import Slow, handler
from imageworks.runtime.wire.head import Head, early_fault
from imageworks.runtime.wire.limits import (
    BODY_BYTES_PER_S,
    BODY_S,
    GRACE_S,
    HEAD_S,
    IDLE_S,
    LINGER_BYTES,
    LINGER_S,
    PIPELINED_BYTES,
    SMALL_BODY_BYTES,
    STALL_S,
    WRITE_HIGH,
    WRITE_LOW,
)
from imageworks.runtime.wire.outbox import Outbox

if TYPE_CHECKING:
    from aiohttp import web

    from imageworks.runtime.wire.exchange import Exchange
    from imageworks.runtime.wire.hot import Hot


class Shared(Protocol):
    """What all connections of one proxy share."""

    body_limit: int
    date: bytes
    heads: dict[object, bytes]
    hot: Hot | None
    outbox: Outbox
    server: web.Server
    spares: Spares
    ending: bool

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def head(self, text: bytes) -> Head:
        """Read a head. Raises ApiError."""
        ...

    def admit(self, head: Head) -> None:
        """May who sent this head send a large body? Raises ApiError."""

    def opened(self, front: Front) -> None:
        """A connection is there."""

    def closed(self, front: Front) -> None:
        """A connection is gone."""


HEAD, BODY, SERVED, LINGER, CLOSED = range(5)


class Front(asyncio.Protocol):
    """A connection. `idle`: between two requests, with nothing read of the next."""

    __slots__ = ("_body", "_chunks", "_due", "_edge", "_eof", "_exchange", "_head", "_held", "_lingered", "_paused",
                 "_slow", "_state", "_taken", "_waiting", "heads", "transport")  # fmt: skip
    transport: asyncio.Transport

    def __init__(self, edge: Shared) -> None:
        self._edge, self.heads = edge, edge.heads
        self._state, self._due = HEAD, math.inf
        self._held = b""
        self._head: Head | None = None
        self._body: Body = b""
        self._chunks: Chunks | None = None
        self._exchange: Exchange | None = None
        self._slow: Slow | None = None
        self._taken = self._eof = self._paused = False
        self._lingered = self._waiting = 0

    # the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self.transport = transport_of(transport)
        self.transport.set_write_buffer_limits(WRITE_HIGH, WRITE_LOW)
        self._due = self._edge.now() + HEAD_S
        self._edge.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or was let go."""
        self._state = CLOSED
        self._edge.closed(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.gone()
        slow, self._slow = self._slow, None
        if slow is not None:
            slow.connection_lost(exc)

    def eof_received(self) -> bool:
        """The client sends no more; one that is served may still want its answer, for a moment."""
        self._eof = True
        if self._state != SERVED:
            return False
        asyncio.get_running_loop().call_later(GRACE_S, self._end_of_grace)
        return True

    def _end_of_grace(self) -> None:
        if self._state == SERVED and not self.transport.is_closing():
            self.transport.abort()

    @property
    def idle(self) -> bool:
        """Is nothing lost when it is closed?"""
        return self._state == HEAD and not self._held

    @property
    def spent(self) -> bool:
        """Idle, and it has taken all of its answers: nothing of it is left once it is closed."""
        return self.idle and not self.transport.get_write_buffer_size()

    def close(self) -> None:
        """Let an idle client go, with what it has not taken yet."""
        self._state, self._due = CLOSED, self._edge.now() + STALL_S
        self._edge.outbox.flush()
        self.transport.close()

    # requests in

    def data_received(self, data: bytes) -> None:
        """Bytes of a client."""
        state = self._state
        if state == HEAD:
            self._read_head(self._held + data if self._held else data)
        elif state == SERVED:
            self._held += data
            if len(self._held) > PIPELINED_BYTES:
                self.transport.pause_reading()
        elif state == BODY and self._chunks is not None:
            self._read_chunks(self._chunks, data)
        elif state == LINGER:
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self.transport.abort()

    def _read_head(self, data: bytes) -> None:
        if data[:2] == b"\r\n":
            data = data[2:]  # some clients end a body with it; RFC 9112 2.2 lets it pass once
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:  # noqa: PLR2004 - not found
            self._held = data
            if fault := early_fault(data):
                self._refuse(fault)
            elif self._due == math.inf or not self._taken:
                self._taken, self._due = True, self._edge.now() + HEAD_S
            return
        self._held, self._taken = b"", False
        try:
            head = self._head = self._edge.head(data[:end])
            self._read_body(head, data[end:] if len(data) > end else b"")
        except ApiError as error:
            self._refuse(error)
        except MemoryError:
            self._refuse(ApiError(503, "out_of_memory", "no memory for this body now", retry=True, retry_after_s=5.0))

    def _read_body(self, head: Head, data: bytes) -> None:
        length, limit = head.length, self._edge.body_limit
        if length is not None:
            if length > limit:
                raise too_large(length)
            if length == len(data):
                self._serve(data)
                return
            if length < len(data):
                self._held = data[length:]
                self._serve(data[:length])
                return
        if length is None or length > SMALL_BODY_BYTES:
            self._edge.admit(head)
        self._state = BODY
        self._due = self._edge.now() + BODY_S + (limit if length is None else length) / BODY_BYTES_PER_S
        if head.awaits_continue and not data:
            self.write(writer.CONTINUE)
        if length is not None:
            Filling(self, self.transport, self._edge.spares.take(length), data, self._serve, length=length)
        else:
            self._chunks = Chunks(limit)
            self._read_chunks(self._chunks, data)

    def _read_chunks(self, chunks: Chunks, data: bytes) -> None:
        try:
            chunks.feed(data)
        except ApiError as error:
            self._refuse(error)
            return
        if chunks.rest is not None:
            self._chunks, self._held = None, chunks.rest
            self._serve(bytes(chunks.payload))

    # requests on

    def _serve(self, body: Body) -> None:
        head = self._head
        assert head is not None  # noqa: S101 - a body has a head
        self._state, self._due, self._body = SERVED, math.inf, body
        hot = self._edge.hot
        if hot is not None:
            self._exchange = hot.offer(self, head, body)
            if self._exchange is not None:
                return
        self._ask(retried=False)

    def _ask(self, *, retried: bool) -> None:
        head, body = self._head, self._body
        assert head is not None  # noqa: S101 - as above
        self._edge.outbox.flush()
        if self._slow is None:
            self._slow = handler(self._edge.server, self._slow_answered, self.transport)
        self._body = b""
        self._slow.ask(head, body, retried=retried)

    def take_slow_way(self) -> None:
        """The fast path could not: the same bytes go to aiohttp."""
        self._exchange = None
        if self._state == SERVED:
            self._ask(retried=True)

    def _slow_answered(self, keep_alive: bool) -> None:  # noqa: FBT001 - a callback of the event loop
        if self._state == SERVED:
            if not self._paused and not self.transport.is_closing():
                self.transport.resume_reading()
            self.answered(close=not keep_alive)

    def answered(self, *, close: bool = False) -> None:
        """The answer is written: read the next request, unless the connection ends with it."""
        self._exchange = None
        body, self._body = self._body, b""
        if len(body) >= SPARE_LEAST:
            self._edge.spares.give(body)
        head, self._head = self._head, None
        if self._state != SERVED:
            return
        if close or self._eof or head is None or not head.keep_alive or self._edge.ending:
            self.close()
            return
        self._state = HEAD
        if not self._paused:
            self._due = self._edge.now() + IDLE_S
        if self._held:
            held, self._held = self._held, b""
            if len(held) > PIPELINED_BYTES:
                self.transport.resume_reading()
            self._read_head(held)

    def _refuse(self, error: ApiError) -> None:
        """Say what is wrong and end the connection; what still comes is dropped, so that the answer is not lost by a reset."""
        given = self._head.request_id if self._head is not None else ""
        self._state, self._due, self._held = LINGER, self._edge.now() + LINGER_S, b""
        self._head = self._chunks = None
        self.write(writer.error(error, request_id(given), self.date(), close=True))
        self._edge.outbox.flush()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    # answers out

    def write(self, data: bytes) -> None:
        """Send to the client."""
        self._edge.outbox.post(self.transport, data)

    def date(self) -> bytes:
        """What the Date field says now."""
        return self._edge.date

    def pause_writing(self) -> None:
        """The client reads slower than it is sent to."""
        self._paused, self._due = True, self._edge.now() + STALL_S
        self._waiting = self.transport.get_write_buffer_size()
        if self._exchange is not None:
            self._exchange.pause()
        elif self._slow is not None:
            self._slow.pause_writing()

    def resume_writing(self) -> None:
        """The client took what waited."""
        self._paused = False
        if self._state == SERVED:
            self._due = math.inf
        elif self._state == HEAD:
            self._due = self._edge.now() + IDLE_S
        if self._exchange is not None:
            self._exchange.resume()
        elif self._slow is not None:
            self._slow.resume_writing()

    def sweep(self, now: float) -> None:
        """Look at the deadlines."""
        if self._paused:
            self._look_at_reader(now)
        elif now >= self._due:
            if self._state == HEAD and not self._held:
                self.close()
            elif self._state in (HEAD, BODY):
                self.transport.set_protocol(self)
                what = "head" if self._state == HEAD else "body"
                self._refuse(ApiError(408, "request_timeout", f"the request's {what} did not come in time", retry=True))
            else:
                self.transport.abort()  # nobody hangs up
        elif self._exchange is not None:
            self._exchange.sweep(now)

    def _look_at_reader(self, now: float) -> None:
        """Who takes an answer slowly is waited for; who takes nothing of it is let go."""
        waiting = self.transport.get_write_buffer_size()
        if waiting < self._waiting:
            self._due = now + STALL_S
        elif now >= self._due:
            self.transport.abort()
        self._waiting = waiting
