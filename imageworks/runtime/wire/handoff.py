"""The way to aiohttp's handlers, one request at a time.

Owns `Slow`: aiohttp's own request handler on a connection that is not its own. It is fed exactly one request (framed anew
from what the edge has read and checked), writes its answer itself, and says when that is done; then the connection may
change speed again. It never sees a chunked body, an upgrade, or a byte of the next request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

from imageworks.runtime.elide import Body
from imageworks.runtime.wire.head import Head

FOREVER_S = 1e9
"""The edge keeps the time of idle connections itself."""
PIECE = 64 << 10


class Slow(web.RequestHandler):
    """One connection's aiohttp handler. `retried`: the request was sent to an engine once already."""

    __slots__ = ("_answered", "retried")

    def __init__(self, server: web.Server, answered: Callable[[bool], None]) -> None:
        no_log: Any = None  # which is aiohttp's own way of saying so
        loop = asyncio.get_running_loop()
        super().__init__(
            server, loop=loop, keepalive_timeout=FOREVER_S, access_log=no_log, auto_decompress=False, lingering_time=0
        )
        self._answered, self.retried = answered, False

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write the answer's end, then give the connection back."""
        found, reset = await super().finish_response(request, resp, start_time)
        asyncio.get_running_loop().call_soon(self._answered, bool(found.keep_alive) and not reset)
        return found, reset

    def ask(self, head: Head, body: Body, *, retried: bool) -> None:
        """Feed one request."""
        self.retried = retried
        self.data_received(framed(head, len(body)))
        view = memoryview(body)
        for at in range(0, len(view), PIECE):
            self.data_received(bytes(view[at : at + PIECE]))


def framed(head: Head, length: int) -> bytes:
    """The head as aiohttp gets it: no hop-by-hop field of the client's, one Content-Length, our own Connection."""
    lines = [b"%b %b HTTP/1.%d\r\n" % (head.method, head.target, head.minor)]
    lines += [b"%b: %b\r\n" % field for field in head.fields if field[0] != b"content-length"]
    if length or head.method not in _BODYLESS:
        lines.append(b"content-length: %d\r\n" % length)
    lines.append(b"connection: keep-alive\r\n\r\n" if head.keep_alive else b"connection: close\r\n\r\n")
    return b"".join(lines)


_BODYLESS = frozenset((b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"TRACE"))


def handler(server: web.Server, answered: Callable[[bool], None], transport: asyncio.Transport) -> Slow:
    """A handler that is connected already."""
    made = Slow(server, answered)
    made.connection_made(transport)
    return made
