"""The endpoints that only look, and POST /unload.

Owns GET /healthz, /readyz, /running, /v1/models, /v1/models/select_by_role and /v1/config/profile: views over
the routing table and the scheduler's state. Nothing here waits for a model.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
from aiohttp import web

from imageworks.contract import Route, RouteTable
from imageworks.runtime.errors import ApiError
from imageworks.runtime.events import Unload
from imageworks.runtime.proxy import Proxy
from imageworks.runtime.selection import select_by_role
from imageworks.runtime.table import ROLE, close_names, resolve


class Views:
    """Looks at one proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy, self._drive = proxy, proxy.drive

    @property
    def _table(self) -> RouteTable:
        return self._proxy.table

    async def healthz(self, _request: web.Request) -> web.Response:
        """The process answers."""
        return _json({"status": "ok"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """Can it serve? 503 with the reason where not."""
        reason = self._not_ready()
        body = {
            "ready": reason is None,
            "reason": reason,
            "profile": self._table.profile,
            "plan_hash": self._table.plan_hash,
            "degraded": self._degraded(),
            "reload": self._proxy.last_reload,
        }
        return _json(body, 200 if reason is None else 503)

    def _degraded(self) -> list[str]:
        """What does not work although requests are served."""
        found = []
        ledger, measuring = self._drive.ledger, self._drive.measuring
        if ledger.trouble is not None and not ledger.probe():
            found.append(f"no new lease is given: the state cannot be written: {ledger.trouble}")
        if measuring.seen and measuring.note is not None:
            found.append(f"no model or lease gets GPU memory: it was measured and is not now: {measuring.note}")
        found += [f"GPU {gpu.slot} is lost" for gpu in self._drive.state.gpus.values() if gpu.lost]
        last = self._proxy.last_reload
        if last.failed is not None:
            found.append(f"the last reload failed, plan {self._table.plan_hash[:12]} goes on: {last.failed}")
        if last.restart_needed:
            found.append(f"only a restart of the proxy changes {'; '.join(last.restart_needed)}")
        return found

    def _not_ready(self) -> str | None:
        if self._proxy.ending:
            return "the proxy is stopping"
        if not self._drive.state.adopted:
            return "looking at what runs already"
        return None if self._table.routes else f"no model is placed on profile {self._table.profile}"

    async def running(self, _request: web.Request) -> web.Response:
        """Every model that is not simply stopped, and who waits for it."""
        return _json(
            {
                "running": [
                    row
                    for name in self._drive.state.slots  # also those that a reload took away, while they end
                    if (row := self._row(name))["state"] != "stopped" or row["waiting"]
                ]
            }
        )

    def _row(self, name: str) -> dict[str, Any]:
        state = self._drive.state
        slot = state.slots[name]
        waiting = sum(entry.models[0] == name for entry in state.waiting.values())
        return {
            "model": name,
            "state": slot.residency,
            "inflight": slot.inflight,
            "waiting": waiting,
            "reason": slot.failure,
            "lease": slot.lease,
            "tokens": {self._drive.uuids[gpu]: token for gpu, token in slot.tokens.items()},
        }

    async def unload(self, request: web.Request) -> web.Response:
        """Unload one model (`?model=`) or all, each as soon as it is idle."""
        name = request.query.get("model")
        if name is not None and name not in self._table.routes:
            hint = close_names(name, self._table.routes)
            raise ApiError(404, "model_not_found", f"No model found: {name}", param="model", hint=hint)
        asked = (
            [name]
            if name
            else [model for model in self._table.routes if self._drive.state.slots[model].residency == "ready"]
        )
        for model in asked:
            self._drive.say(Unload(model))
        return _json({"unloading": [self._row(model) for model in asked]})

    async def models(self, _request: web.Request) -> web.Response:
        """The models of this profile in OpenAI's list shape, then the roles."""
        roles = self._table.roles.get(self._table.profile, {})
        data = [self._model(route) for route in self._table.routes.values()]
        data += [_entry(f"role:{role}", "role") for role, contract in sorted(roles.items()) if contract.candidates]
        return _json({"object": "list", "data": data})

    async def model(self, request: web.Request) -> web.Response:
        """One of them, by any name that a request may use."""
        name = request.match_info["name"]
        resolution = resolve(self._table, name)
        return _json(_entry(name, "role") if name.startswith(ROLE) else self._model(resolution.routes[0]))

    def _model(self, route: Route) -> dict[str, Any]:
        missing = self._proxy.missing(route)
        return _entry(route.id, route.backend) | {
            "aliases": route.aliases,
            "capabilities": route.capabilities,
            "quantization": route.quantization,
            "context": route.context,
            "state": self._drive.state.slots[route.id].residency,
            "weights": missing[0].hint if missing else "here",
        }

    async def select(self, request: web.Request) -> web.Response:
        """The model that a role would get."""
        query = request.query
        if not query.get("role"):
            raise ApiError(400, "missing_field", "the query names no role", param="role", hint="?role=caption")
        excluded = [name for value in query.getall("exclude_models", []) for name in value.split(",")]
        ready = [name for name, slot in self._drive.state.slots.items() if slot.residency == "ready"]
        loaded = ready if query.get("prefer_loaded") in ("1", "true") else ()
        chosen = select_by_role(
            self._table,
            query["role"],
            profile=query.get("profile"),
            exclude=excluded,
            top_n=_top_n(query.get("top_n")),
            loaded=loaded,
        )
        return _json(chosen)

    async def profile(self, _request: web.Request) -> web.Response:
        """The running profile and its budgets."""
        table = self._table
        facts = {name: getattr(table, name) for name in ("stack", "profile", "plan_hash", "bundle_hash", "unplaced")}
        policy, gpus = dataclasses.asdict(table.policy), [dataclasses.asdict(gpu) for gpu in table.gpus]
        return _json({**facts, "policy": policy, "gpus": gpus, "available_profiles": sorted(table.roles)})


def _top_n(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or not int(text):
        raise ApiError(400, "invalid_field", f"top_n={text} is no count", param="top_n")
    return int(text)


def _entry(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")
