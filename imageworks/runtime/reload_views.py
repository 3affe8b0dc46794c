"""POST /v1/reload: take the routing table over again.

Owns that endpoint. A table that cannot be taken over is answered with the reason, and the one in force stays.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from imageworks.runtime.reload import Reloader


class ReloadViews:
    """The endpoint of one proxy."""

    def __init__(self, reloader: Reloader) -> None:
        self._reloader = reloader

    async def reload(self, request: web.Request) -> web.Response:
        """What changed, and what only a restart can change."""
        told = await self._reloader.reload(f"POST /v1/reload from {request.remote}")
        return web.Response(body=msgspec.json.encode(told), content_type="application/json")
