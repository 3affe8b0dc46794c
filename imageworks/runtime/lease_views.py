"""The endpoints of GPU leases, and the views of the GPUs.

Owns POST /v1/gpu/lease, /v1/gpu/lease/{id}/renew, /v1/gpu/lease/{id}/handover, /v1/gpu/release, /v1/gpu/force_release,
/v1/gpu/pardon, GET /v1/gpu/status and /v1/gpu/events. Reading is in `lease_request`, judgement in the scheduler.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from imageworks.runtime import events as ev
from imageworks.runtime import lease_request as body
from imageworks.runtime import processes
from imageworks.runtime.drive import Drive
from imageworks.runtime.errors import ApiError
from imageworks.runtime.lease_desk import LeaseCall
from imageworks.runtime.leases import Holder, Lease
from imageworks.runtime.snapshot import view

HEARTBEAT_S = 15.0
T = TypeVar("T", body.AcquireBody, body.RenewBody, body.ReleaseBody, body.ForceBody, body.HandoverBody, body.PardonBody)


class LeaseViews:
    """Leases of one drive."""

    def __init__(self, drive: Drive) -> None:
        self._drive, self._desk = drive, drive.leases

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [
            web.post("/v1/gpu/lease", self.acquire),
            web.post("/v1/gpu/lease/{id}/renew", self.renew),
            web.post("/v1/gpu/lease/{id}/handover", self.handover),
            web.post("/v1/gpu/release", self.release),
            web.post("/v1/gpu/force_release", self.force_release),
            web.post("/v1/gpu/pardon", self.pardon),
            web.get("/v1/gpu/status", self.status),
            web.get("/v1/gpu/events", self.events),
        ]

    async def acquire(self, request: web.Request) -> web.Response:
        """A lease, at once or within `wait_s`; 409 tells who has the memory, and the place in the queue."""
        asked = await _read(request, body.AcquireBody)
        call, holder = self._desk.call_id(), _holder(asked.pid)
        wanted = body.ask(asked, self._drive.uuids, self._drive.table.leases.ttl_s, call + os.urandom(8).hex(), holder)
        self._open_for_leases()
        now = self._drive.clock()
        try:
            lease = await self._desk.ask(ev.Acquire(call, wanted, now + asked.wait_s))
        except ApiError as error:
            return _refused(error, self._desk.queued.get(call))
        finally:
            self._desk.queued.pop(call, None)
        return _json(self._lease(lease))

    async def renew(self, request: web.Request) -> web.Response:
        """The holder lives."""
        asked = await _read(request, body.RenewBody)
        return await self._do(ev.Renew(self._desk.call_id(), request.match_info["id"], asked.token))

    async def release(self, request: web.Request) -> web.Response:
        """The holder is done. The answer comes at once; the memory is given on when it is seen free."""
        asked = await _read(request, body.ReleaseBody)
        return await self._do(ev.Release(self._desk.call_id(), asked.lease_id, asked.token))

    async def force_release(self, request: web.Request) -> web.Response:
        """A person ends somebody's lease."""
        asked = await _read(request, body.ForceBody)
        return await self._do(ev.ForceRelease(self._desk.call_id(), asked.lease_id, asked.actor))

    async def handover(self, request: web.Request) -> web.Response:
        """To another owner or to a model."""
        asked = await _read(request, body.HandoverBody)
        if (asked.owner is None) == (asked.model is None):
            raise ApiError(400, "invalid_request", "hand over to exactly one of owner and model", param="owner")
        if asked.model is not None and asked.model not in self._drive.table.routes:
            raise ApiError(404, "model_not_found", f"No model found: {asked.model[:80]}", param="model")
        lease = request.match_info["id"]
        return await self._do(ev.Handover(self._desk.call_id(), lease, asked.token, asked.owner, asked.model))

    async def pardon(self, request: web.Request) -> web.Response:
        """A person says that what is in quarantine is free."""
        asked = await _read(request, body.PardonBody)
        state = self._drive.state
        slot, lease = state.slots.get(asked.holder), state.leases.get(asked.holder)
        if "quarantined" not in (slot and slot.residency, lease and lease.state):
            raise ApiError(404, "not_quarantined", f"nothing of {asked.holder[:80]} is in quarantine", param="holder")
        self._drive.say(ev.Pardon(asked.holder, asked.actor))
        return _json({"pardoned": asked.holder})

    async def status(self, _request: web.Request) -> web.Response:
        """One consistent moment of all GPUs."""
        return _json(self.snapshot())

    def snapshot(self) -> dict[str, Any]:
        """The body of `status`."""
        state, now = self._drive.state, self._drive.clock()
        seen = view(state)
        return {
            "mode": self._drive.table.leases.mode,
            "measured": self._drive.measuring.seen and self._drive.measuring.note is None,
            "note": self._drive.measuring.note,
            "gpus": [msgspec.to_builtins(gpu, str_keys=True) for gpu in seen.gpus],
            "leases": [self._lease(lease, now) for lease in state.leases.values()],
            "waiting": [msgspec.to_builtins(call) for call in seen.waiting],
        }

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Every move of a model or lease as a server-sent event; `Last-Event-ID` goes on where it stopped."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        moves = self._drive.transitions.follow(request.headers.get("Last-Event-ID"))
        await response.write(b": follows\n\n")
        news = asyncio.ensure_future(anext(moves))
        try:
            while True:
                done, _ = await asyncio.wait({news}, timeout=HEARTBEAT_S)
                await response.write(news.result() if done else b": still here\n\n")
                if done:
                    news = asyncio.ensure_future(anext(moves))
        finally:
            news.cancel()

    async def _do(self, event: LeaseCall) -> web.Response:
        return _json(self._lease(await self._desk.ask(event)))

    def _open_for_leases(self) -> None:
        left_s = self._desk.closed_until - self._drive.clock()
        if left_s > 0:
            message = "the record of leases was lost; none is given until every earlier holder has heard of it"
            raise ApiError(503, "not_reconciled", message, retry=True, retry_after_s=left_s)

    def _lease(self, lease: Lease, now: float | None = None) -> dict[str, Any]:
        left_s = lease.expires - (self._drive.clock() if now is None else now)
        return {
            "lease_id": lease.id,
            "token": lease.token,
            "tokens": {lease.uuids[slot]: token for slot, token in lease.tokens.items()},
            "gpus": [lease.uuids[slot] for slot in sorted(lease.tokens)],
            "slots": sorted(lease.tokens),
            "mib": lease.ask.mib,
            "exclusive": lease.ask.exclusive,
            "owner": lease.ask.owner,
            "reason": lease.ask.reason,
            "priority": lease.ask.priority,
            "request_id": lease.ask.request,
            "pid": lease.ask.holder.pid if lease.ask.holder else None,
            "state": lease.state,
            "ttl_s": lease.ask.ttl_s,
            "expires_in_s": round(max(0.0, left_s), 3),
            "pids": lease.pids,
        }


async def _read(request: web.Request, kind: type[T]) -> T:
    if (request.content_length or 0) > body.BODY_LIMIT:
        raise ApiError(400, "invalid_request", f"a body of {request.content_length} bytes is no lease call")
    data = await request.content.read(body.BODY_LIMIT + 1)
    while len(data) <= body.BODY_LIMIT and not request.content.at_eof():
        data += await request.content.read(body.BODY_LIMIT + 1 - len(data))
    if len(data) > body.BODY_LIMIT:
        raise ApiError(400, "invalid_request", f"a body over {body.BODY_LIMIT} bytes is no lease call")
    return body.read(kind, data)


def _holder(pid: int | None) -> Holder | None:
    """The process that is to be watched, and ended when its lease is taken back. Raises ApiError 400."""
    if pid is None:
        return None
    found = processes.identity(pid)
    if found is None:
        raise ApiError(400, "invalid_request", f"there is no process {pid}", param="pid")
    if pid in processes.ancestors(os.getpid()):
        raise ApiError(400, "invalid_request", f"process {pid} runs this proxy; its end would end us too", param="pid")
    if os.geteuid() != 0 and Path(f"/proc/{pid}").stat().st_uid != os.geteuid():
        raise ApiError(400, "invalid_request", f"process {pid} belongs to another user", param="pid")
    return found


def _refused(error: ApiError, queued: ev.LeaseQueued | None) -> web.Response:
    data = msgspec.json.decode(error.body())
    if error.status == web.HTTPConflict.status_code:
        data["position"] = queued.position if queued else None
        data["estimate_s"] = queued.estimate_s if queued else None
    return web.Response(
        status=error.status, body=msgspec.json.encode(data), content_type="application/json", headers=error.headers()
    )


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
