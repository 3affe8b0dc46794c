"""GET /v1/models/health: how every model of the plan is.

Owns that view over the scheduler's state and the watch. Looks at nothing itself, so it answers at once.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from imageworks.runtime.health import Vitals
from imageworks.runtime.proxy import Proxy


class HealthViews:
    """Looks at one proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy, self._drive = proxy, proxy.drive

    async def health(self, _request: web.Request) -> web.Response:
        """Each model: `health` is healthy, suspect, unknown, or its residency while it is not ready."""
        rows = [self._row(name) for name in self._drive.table.routes]
        body = {
            "healthy": sum(row["health"] == "healthy" for row in rows),
            "total": len(rows),
            "interval_s": self._drive.table.policy.health_check_interval_s,
            "models": rows,
        }
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    def _row(self, name: str) -> dict[str, Any]:
        slot = self._drive.state.slots[name]
        watch = self._proxy.watch
        vitals, looked_s = (watch.vitals(name), watch.looked_s(name)) if watch else (Vitals(), None)
        ready = slot.residency == "ready"
        quiet_s = self._drive.progress.quiet_s(name)
        return {
            "model": name,
            "state": slot.residency,
            "health": vitals.verdict if ready else slot.residency,
            "reason": (vitals.reason if ready else slot.failure) or None,
            "inflight": slot.inflight,
            "looked_s_ago": None if looked_s is None else round(looked_s, 3),
            "heard_s_ago": None if quiet_s is None else round(quiet_s, 3),
        }
