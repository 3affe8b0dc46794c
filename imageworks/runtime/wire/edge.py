"""All client connections of one proxy, and the socket they come from.

Owns what connections share: the reader of heads with its memory, the cap, the clock that looks at their deadlines, the
date, and the order of the end. One sweep every SWEEP_S replaces a timer for each request.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from email.utils import formatdate
from typing import TYPE_CHECKING

from aiohttp import web

from imageworks.runtime.clients import shown_key, today
from imageworks.runtime.proxy import Proxy
from imageworks.runtime.wire.body import Spares
from imageworks.runtime.wire.front import Front
from imageworks.runtime.wire.head import Head, read
from imageworks.runtime.wire.limits import CONNECTIONS, SWEEP_S
from imageworks.runtime.wire.outbox import Outbox

if TYPE_CHECKING:
    from imageworks.runtime.wire.hot import Hot

BACKLOG = 4096
SPARES_EVERY = 20
_HEADS, _HEAD_BYTES = 512, 1 << 10
_SPARE = 256
"""File descriptors that are not for clients: engines, logs, the database."""


class Edge:
    """The connections of `proxy`; `server` is aiohttp's, for what `hot` (None: switched off) does not serve."""

    def __init__(self, proxy: Proxy, server: web.Server, hot: Hot | None, connections: int = CONNECTIONS) -> None:
        self.proxy, self.server, self.hot = proxy, server, hot
        self.follow()
        proxy.followers.append(self.follow)
        self.date = formatdate(usegmt=True).encode("ascii")
        self._connections, self._cap = dict[Front, None](), connections
        self._heads: dict[bytes, Head] = {}
        self.heads: dict[object, bytes] = {}
        self.spares, self._sweeps = Spares(), 0
        self.outbox = hot.pool.outbox if hot is not None else Outbox(proxy.active)
        self._timer: asyncio.TimerHandle | None = None
        self.ending = False

    def follow(self) -> None:
        """Another routing table is in force."""
        self.body_limit = self.proxy.table.proxy.body_limit_bytes

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def head(self, text: bytes) -> Head:
        """Read a head. Clients repeat theirs word for word, so the last ones are remembered. Raises ApiError."""
        found = self._heads.get(text)
        if found is None:
            found = read(text)
            if len(text) <= _HEAD_BYTES:
                if len(self._heads) >= _HEADS:
                    self._heads.clear()
                self._heads[text] = found
        return found

    def admit(self, head: Head) -> None:
        """Raise ApiError 401 unless who begins a large body may send one: its memory is not for everybody."""
        if self.proxy.clients.required:
            own = next((value.decode("latin-1") for name, value in head.fields if name == b"x-api-key"), None)
            self.proxy.clients.identify(shown_key(head.authorization, own), today())

    def opened(self, front: Front) -> None:
        """One more; at the cap, idle ones make room."""
        self._connections[front] = None
        if len(self._connections) > self._cap:
            idle = [each for each in self._connections if each.spent and each is not front][: max(1, self._cap // 64)]
            for each in idle or [front]:
                self.closed(each)
                each.close()

    def closed(self, front: Front) -> None:
        """One less."""
        self._connections.pop(front, None)

    def sweep(self) -> None:
        """Look at all deadlines, and come again."""
        now = self.now()
        date = formatdate(usegmt=True).encode("ascii")
        if date != self.date:
            self.date = date
            self.heads.clear()
        for front in tuple(self._connections):
            front.sweep(now)
        self._sweeps += 1
        if not self._sweeps % SPARES_EVERY:
            self.spares.sweep()
        if self.hot is not None:
            self.hot.pool.sweep()
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self.sweep)

    def end(self) -> None:
        """Let idle clients go; the others go when they are answered."""
        self.ending = True
        for front in tuple(self._connections):
            if front.idle:
                front.close()

    async def close(self) -> None:
        """Let everybody go, with what was written."""
        if self._timer is not None:
            self._timer.cancel()
        self.outbox.flush()
        for end in (asyncio.Transport.close, asyncio.Transport.abort):
            for front in tuple(self._connections):
                getattr(front.transport, end.__name__)()
            await asyncio.sleep(0)
        if self.hot is not None:
            self.hot.pool.close()


@asynccontextmanager
async def accepting(
    proxy: Proxy, server: web.Server, sock: socket.socket, hot: Hot | None, last_words: Callable[[], Awaitable[None]]
) -> AsyncIterator[Edge]:
    """Serve clients of a listening socket; `server` has aiohttp's handlers, `last_words` lets them end."""
    edge = Edge(proxy, server, hot, _most_connections())
    listener = await asyncio.get_running_loop().create_server(lambda: Front(edge), sock=sock, backlog=BACKLOG)
    edge.sweep()
    try:
        yield edge
    finally:
        listener.close()
        await last_words()
        await edge.close()


def _most_connections() -> int:
    """CONNECTIONS, or what the limit of file descriptors leaves; that is raised as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CONNECTIONS + _SPARE  # each may have one to an engine
    if soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(16, min(CONNECTIONS, (soft - _SPARE) // 2))
