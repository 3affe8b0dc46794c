"""A body on its way in.

Owns `Filling`, which receives a body of known length straight into the memory that it ends in: no joining, no second copy of
8 MB, and not a byte of the next request. It is the connection's protocol for so long and then hands it back. The memory
grows with what comes, so that who only announces a large body costs nothing. `Spares` keeps such memory for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from imageworks.runtime.elide import Body

SPARES, SPARE_LEAST, SPARE_MOST = 4, 64 << 10, 16 << 20
FIRST_BYTES = 256 << 10
"""What is there for a body of which nothing came; doubled whenever it is full."""
_ZEROS = bytes(256 << 10)


class Spares:
    """Memory of bodies that were sent, for the next ones: fresh memory costs more time than all that is done with it.

    What somebody still looks at is never taken: a bytearray with a view of it cannot change its length.
    """

    def __init__(self) -> None:
        self._free: list[bytearray] = []
        self._used = False

    def take(self, length: int) -> bytearray:
        """Memory for a body of this length, as long as that or the begin of it; what it holds is to be overwritten."""
        self._used = True
        for place, spare in enumerate(self._free):
            if spare.__alloc__() // 2 <= length < spare.__alloc__():
                del self._free[place]
                return _sized(spare, length)
        return bytearray(min(length, FIRST_BYTES))

    def give(self, body: Body) -> None:
        """The body was sent, and nobody needs it."""
        if isinstance(body, bytearray) and len(self._free) < SPARES and SPARE_LEAST <= len(body) <= SPARE_MOST:
            with suppress(BufferError):
                body.pop()  # refused while there is a view; one byte less is no matter
                self._free.append(body)

    def sweep(self) -> None:
        """Let go what nobody took since the last time."""
        if not self._used:
            self._free.clear()
        self._used = False


def _sized(spare: bytearray, length: int) -> bytearray:
    del spare[length:]
    while len(spare) < length:
        spare += _ZEROS[: length - len(spare)]
    return spare


class Filling(asyncio.BufferedProtocol):
    """Takes over a transport until `body` holds `length` bytes, then calls `done` with it."""

    def __init__(
        self,
        front: asyncio.Protocol,
        transport: asyncio.Transport,
        body: bytearray,
        begin: bytes,
        done: Callable[[bytearray], None],
        *,
        length: int,
    ) -> None:
        self._front, self._transport, self._done = front, transport, done
        self._body, self._length = body, length
        self._body[: len(begin)] = begin
        self._filled = len(begin)
        self._view = memoryview(self._body)
        transport.set_protocol(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go; never more than the body."""
        del sizehint
        if self._filled == len(self._body):
            self._view.release()
            _sized(self._body, min(self._length, 2 * self._filled))
            self._view = memoryview(self._body)
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes came."""
        self._filled += nbytes
        if self._filled == self._length:
            self._transport.set_protocol(self._front)
            self._view.release()
            body, self._body = self._body, bytearray()
            self._done(body)

    def eof_received(self) -> bool | None:
        """The client ends in the middle of its body: there is nobody to answer."""
        return self._front.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._front.connection_lost(exc)

    def pause_writing(self) -> None:
        """As the connection itself."""
        self._front.pause_writing()

    def resume_writing(self) -> None:
        """As the connection itself."""
        self._front.resume_writing()


def transport_of(transport: asyncio.BaseTransport) -> asyncio.Transport:
    """The stream transport that a TCP connection's protocol is given."""
    return cast("asyncio.Transport", transport)
