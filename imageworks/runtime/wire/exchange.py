"""One request on the fast path: from its whole body to the last byte of its answer.

Owns `Exchange`. The way is fast because nothing is waited for: the model is ready and free, the answer passes as it
comes. What may go wrong is answered as on the slow way, from the same words (`runtime.answer`).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

import msgspec

from imageworks.contract import Route
from imageworks.runtime.answer import Lines, broke_off, headers, is_events, late, silent, unreachable
from imageworks.runtime.errors import ApiError
from imageworks.runtime.job import Job
from imageworks.runtime.journal import Journal
from imageworks.runtime.request import Shaped
from imageworks.runtime.tail import Tail
from imageworks.runtime.wire import writer
from imageworks.runtime.wire.limits import SEND_BYTES, WRITE_HIGH
from imageworks.runtime.wire.upstream import Address, Back, Fields, Pool

if TYPE_CHECKING:
    from imageworks.runtime.proxy import Proxy


class Client(Protocol):
    """The connection that a request came on."""

    def write(self, data: bytes) -> None:
        """Send to the client."""

    heads: dict[object, bytes]
    """First lines of answers that were made lately, with the date of now; forgotten when that changes."""

    def date(self) -> bytes:
        """What the Date field says now."""

    def answered(self, *, close: bool = False) -> None:
        """The answer is written; the next request may be read."""

    def take_slow_way(self) -> None:
        """The request goes the slow way after all: it was sent once, and nothing was answered."""


class Exchange(msgspec.Struct, eq=False):
    """A granted request. Ends exactly once: by the answer, a failure, `gone`, or `cancel`. A Struct, as `runtime.job`'s."""

    _proxy: Proxy
    _pool: Pool
    _client: Client
    _job: Job
    _journal: Journal
    _ticket: str
    route: Route
    _shaped: Shaped
    _patience_s: float
    _due: float
    _back: Back | None = None
    _dialling: asyncio.Task[None] | None = None
    _unsent: list[memoryview] = []
    _status: int = 0
    _begun: bool = False
    _given_back: bool = False
    over: bool = False
    _fields: Fields = ()
    _parts: list[bytes] = []
    _tail: Tail | None = None
    _lines: Lines | None = None

    # to the engine

    def begin(self, where: Address, head: bytes) -> None:
        """Send the request, over an idle connection or a new one; `head` lacks only what differs between requests."""
        self._journal.forwarded(self.route, self._shaped)
        self._proxy.enter(self)
        back = self._pool.take(where)
        if back is not None:
            self._send(back, head)
        else:
            self._dialling = asyncio.get_running_loop().create_task(self._dial(where, head))

    async def _dial(self, where: Address, head: bytes) -> None:
        try:
            back = await self._pool.dial(where)
        except OSError as error:
            await self._ask_after(error)
            return
        if self.over:
            self._pool.put(back)
        elif not self._proxy.drive.current(self._ticket):  # another process listens there by now, or will
            back.transport.abort()
            await self._ask_after("it was stopped")
        else:
            self._send(back, head)

    def _send(self, back: Back, head: bytes) -> None:
        self._back, back.reader, back.closes = back, self, self.route.backend == "llamacpp"
        pieces, number = self._shaped.pieces, self._job.id.encode()
        body = pieces[0]
        if len(pieces) == 1 and isinstance(body, bytes) and len(body) <= SEND_BYTES:
            framed = b"%bx-request-id: %b\r\nContent-Length: %d\r\n\r\n%b" % (head, number, len(body), body)
            self._pool.outbox.post(back.transport, framed)
            return
        back.sending = True
        back.transport.write(b"%bx-request-id: %b\r\nContent-Length: %d\r\n\r\n" % (head, number, self._shaped.length))
        views = (memoryview(piece) for piece in pieces)
        self._unsent = [view[at : at + SEND_BYTES] for view in views for at in range(0, len(view), SEND_BYTES)][::-1]
        self.writable()

    def writable(self) -> None:
        """Send more of a large body, as much as the engine takes."""
        back = self._back
        while back is not None and self._unsent and back.transport.get_write_buffer_size() <= WRITE_HIGH:
            back.transport.write(self._unsent.pop())
        if back is not None:
            back.sending = bool(self._unsent)

    # from the engine

    def answered(self, status: int, fields: Fields) -> None:
        """The answer's head is read."""
        self._status, self._fields = status, fields
        if self._job.request.stream:
            kind = next((value for name, value in fields if name == "content-type"), "")
            self._tail, self._lines = Tail(), Lines(by_line=is_events(kind))

    def feed(self, data: bytes, *, ended: bool) -> None:
        """Pass a piece of the answer on."""
        if self.over or not self._status:
            return
        now = time.monotonic()
        self._due = now + self._patience_s
        if data:
            if self._journal.first is None:
                self._journal.first = now
            self._proxy.drive.progress.heard(self.route.id)
        if self._tail is not None:
            if self._begun and data and not ended:
                self._pass(self._tail, data)
            else:
                self._relay(self._tail, data, ended=ended)
        elif not ended:
            self._parts.append(data)
        else:
            self._whole(b"".join([*self._parts, data]) if self._parts else data)
        if ended:
            self._end(ok=True)
            self._proxy.note(self._journal, self._status)
            self._client.answered()

    def _whole(self, body: bytes) -> None:
        self._journal.answer, self._journal.complete = body, True
        self._client.write(self._head(b"Content-Length: %d" % len(body)) + body)

    def _pass(self, tail: Tail, data: bytes) -> None:
        """What is done for most pieces of a stream."""
        tail.feed(data)
        if passed := self._lines.feed(data):  # type: ignore[union-attr]
            self._client.write(b"%x\r\n%b\r\n" % (len(passed), passed))

    def _relay(self, tail: Tail, data: bytes, *, ended: bool) -> None:
        assert self._lines is not None  # noqa: S101 - made together with the tail
        passed = b""
        if data:
            tail.feed(data)
            passed = self._lines.feed(data)
        if ended:
            passed += self._lines.rest()
            self._journal.answer, self._journal.complete = tail, True
        out = writer.chunk(passed) if passed else b""
        if ended:
            out += writer.LAST_CHUNK
        if not self._begun:
            self._begun = True
            out = self._head(writer.STREAMED) + out
        if out:
            self._client.write(out)

    def _head(self, framing: bytes) -> bytes:
        heads, shaped = self._client.heads, self._shaped
        key = (self._status, self._fields, self.route.id, shaped.clamped)
        first = heads.get(key)
        if first is None:
            fields = headers(self._status, dict(self._fields), self.route, shaped)
            fields.setdefault("Content-Type", "application/octet-stream")
            first = heads[key] = writer.first_lines(self._status, fields.items(), self._client.date())
        return b"%bx-request-id: %b\r\n%b\r\n\r\n" % (first, self._job.id.encode(), framing)

    # ends

    def broken(self, reason: str) -> None:
        """The connection to the engine is gone before the answer was whole."""
        self._back = None
        if self.over:
            return
        if self._status:
            self._fail(broke_off(self.route, reason))
        else:
            self._dialling = asyncio.get_running_loop().create_task(self._ask_after(reason))

    async def _ask_after(self, reason: object) -> None:
        """Nothing was answered: is the process gone? Then the slow way starts it again and asks once more."""
        self._give_back(ok=False)
        dead = await self._proxy.drive.report_dead(self.route.id)
        if self.over:
            return
        if dead:
            self._over()
            self._proxy.undo(self._journal)
            self._client.take_slow_way()
        else:
            self._fail(unreachable(self.route, reason))

    def sweep(self, now: float) -> None:
        """Has the engine been silent for too long?"""
        if now >= self._due and not self.over:
            self._fail(silent(self.route) if self._status else late(self.route))

    def cancel(self) -> None:
        """The proxy ends: tell the client."""
        self._fail(ApiError(503, "shutting_down", "the proxy was stopped", retry=not self._begun))

    def gone(self) -> None:
        """The client is gone: the engine's work ends too."""
        if self.over:
            return
        tail = self._tail
        self._journal.answer = tail
        self._end(ok=False)
        self._proxy.record(self._journal, None, None if tail is not None and tail.ended() else "client_abort")

    def _fail(self, error: ApiError) -> None:
        if self.over:
            return
        self._journal.answer = self._tail
        self._end(ok=False)
        self._proxy.record(self._journal, error)
        if self._begun and self._lines is not None:
            self._client.write(writer.chunk(self._lines.failure(error)) + writer.LAST_CHUNK)
        else:
            self._client.write(writer.error(error, self._job.id, self._client.date(), close=False))
        self._client.answered()

    def _end(self, *, ok: bool) -> None:
        self._give_back(ok=ok)
        self._over()
        back, self._back = self._back, None
        if back is not None and back.reader is self:
            back.reader = None
            back.transport.abort()  # the engine sees the disconnect and stops

    def _over(self) -> None:
        self.over = True
        if self._job.request.elided is not None:
            self._forget_body()
        self._proxy.leave(self)

    def _forget_body(self) -> None:
        """Let the memory of a large body be used again; where the engine's connection still holds a part, it is not."""
        elided = self._job.request.elided
        self._unsent.clear()
        self._journal.shaped = self._shaped = Shaped((), self._shaped.clamped, self._shaped.fields)
        for part in elided.parts if elided is not None else ():
            part.release()

    def _give_back(self, *, ok: bool) -> None:
        if not self._given_back:
            self._given_back = True
            self._proxy.drive.finish(self._ticket, ok=ok)

    # a client that reads slowly

    def pause(self) -> None:
        """The client has enough for now."""
        if self._back is not None and self._back.reader is self:
            self._back.transport.pause_reading()

    def resume(self) -> None:
        """The client takes more."""
        if self._back is not None and self._back.reader is self:
            self._back.transport.resume_reading()
            if self._status:
                self._due = time.monotonic() + self._patience_s  # it was not asked for more meanwhile
