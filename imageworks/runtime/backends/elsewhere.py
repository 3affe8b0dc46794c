"""A server that we neither start nor stop: any OpenAI-compatible address.

Owns looking at it, so that the health view can say how it is. Nothing here changes anything.
"""

from __future__ import annotations

import aiohttp

from imageworks.contract import Route
from imageworks.runtime.backends.protocol import Look
from imageworks.runtime.backends.server import Server


class Elsewhere:
    """The server behind a route without a program."""

    def __init__(self, http: aiohttp.ClientSession, route: Route) -> None:
        self._server, self._route = Server(http, route), route

    async def look(self) -> Look:
        """Its /health, then whether it names the model; a server that lists nothing is taken at its word."""
        seen = await self._server.look()
        if seen.answering != "ok":
            return seen
        names = await self._server.names()
        if names and self._route.served_name not in names:
            return Look("failing", f"it serves {', '.join(names)}, not {self._route.served_name}")
        return seen

    async def canary(self, timeout_s: float) -> bool | None:
        """Never asked: somebody else pays for its tokens."""
        del timeout_s
        return None
