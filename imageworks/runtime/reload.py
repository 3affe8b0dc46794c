"""Another routing table for a proxy that serves: read, judged, taken over in one step, or refused with the old one in force.

Owns the order of a reload. Requests that were granted end on the route they were granted, those that wait are granted by
the new table. Files are read beside the event loop; from the first change to the last nothing is awaited.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from imageworks import locations
from imageworks.contract import ContractError, ExecSpec, Route, RouteTable, exec_spec
from imageworks.runtime import processes, table
from imageworks.runtime.access import is_local
from imageworks.runtime.backends.protocol import Driver
from imageworks.runtime.clients import Clients
from imageworks.runtime.delta import Delta, LastReload, Life, delta, obstacles
from imageworks.runtime.errors import ApiError
from imageworks.runtime.keys import Keys, read_clients
from imageworks.runtime.keys import read as read_keys
from imageworks.runtime.proxy import Proxy
from imageworks.runtime.residency import DOWN
from imageworks.runtime.watch import Looked

LOG = logging.getLogger(__name__)
READS = 5
"""The files of a generation are exchanged as one folder; what was read across that moment is read again."""


class Making(Protocol):
    """Makes what a route needs."""

    @property
    def elsewhere(self) -> Mapping[str, Looked]:
        """What was made at the start for servers that are not ours."""
        ...

    def make(self, route: Route) -> Driver | None:
        """The driver of a route; None for a server that is not ours."""
        ...

    def look_at(self, route: Route) -> Looked:
        """What such a server is looked at with."""
        ...


@dataclass(frozen=True, slots=True)
class Files:
    """One generation: its table, the exec specs of its programs, the keys of its servers elsewhere and of clients."""

    table: RouteTable
    specs: Mapping[str, ExecSpec]
    keys: Keys
    clients: Clients


class Reloader:
    """Reloads one proxy from the file `routes`; `drivers` made the ones that it has."""

    def __init__(
        self,
        proxy: Proxy,
        routes: Path,
        stack: Path,
        environ: Mapping[str, str],
        drivers: Making,
    ) -> None:
        self._proxy, self._routes, self._stack, self._environ = proxy, routes, stack, environ
        self._drivers = drivers
        self._elsewhere = {name: (proxy.table.routes[name], one) for name, one in drivers.elsewhere.items()}
        self._turn = asyncio.Lock()

    async def whenever(self, asked: asyncio.Event) -> None:
        """Reload each time `asked` is set, until cancelled; what goes wrong is logged and shown by /readyz."""
        while True:
            await asked.wait()
            asked.clear()
            with suppress(ApiError):
                await self.reload("SIGHUP")

    async def reload(self, who: str) -> Mapping[str, Any]:
        """Take the file over and say what changed. Raises ApiError; then everything is as it was, and /readyz says so."""
        async with self._turn:
            LOG.info("%s asks for a reload of %s", who, self._routes)
            last = self._proxy.last_reload
            try:
                found, told = await self._reload()
            except ApiError as error:
                serving = self._proxy.table.plan_hash[:12]
                LOG.error("no reload, plan %s goes on: %s", serving, error.message)  # noqa: TRY400 - a person's mistake
                self._proxy.last_reload = replace(last, number=last.number + 1, failed=error.message)
                raise
            self._proxy.last_reload = LastReload(last.number + 1, None, found.restart_needed)
            return told

    async def _reload(self) -> tuple[Delta, Mapping[str, Any]]:
        proxy, drive = self._proxy, self._proxy.drive
        if proxy.ending:
            raise ApiError(503, "shutting_down", "the proxy is stopping")
        if not drive.state.adopted:
            raise ApiError(503, "not_ready", "looking at what runs already", retry=True, retry_after_s=1.0)
        try:
            files = await asyncio.to_thread(read, self._routes, self._stack, self._environ)
            words = await asyncio.to_thread(in_force, self._stack)
        except ContractError as error:
            raise ApiError(422, "reload_unreadable", str(error), hint="imageworks compile") from None
        before = proxy.table
        found = obstacles(before, files.table)
        if not (is_local(before.proxy.host) or files.table.proxy.keys):
            found = (*found, "it declares no keys, and others can reach the proxy's address")
        if found:
            raise ApiError(
                409,
                "reload_impossible",
                f"the new table cannot be taken over: {'; '.join(found)}",
                hint="restart the proxy",
            )
        found_delta = delta(before, files.table, self._lives(words), files.specs)
        self._swap(found_delta, files)
        return found_delta, _told(before, found_delta, files)

    def _lives(self, words: Mapping[str, ExecSpec]) -> Mapping[str, Life]:
        drive = self._proxy.drive
        up = (name for name, slot in drive.state.slots.items() if slot.residency not in DOWN and name in drive.lineup)
        routes = {name: drive.lineup.route(name) for name in up}
        return {name: Life(route, words.get(route.program or "")) for name, route in routes.items()}

    def _swap(self, found: Delta, files: Files) -> None:
        """The one step."""
        proxy, drive = self._proxy, self._proxy.drive
        drivers = {}
        for name, route in found.table.routes.items():
            newest = drive.lineup.newest(name)
            made = newest[0] if newest is not None and newest[1] == route else self._drivers.make(route)
            if made is not None:
                drivers[name] = made
        proxy.use(found.table, files.keys, files.clients)
        if proxy.watch is not None:
            proxy.watch.use(self._look_at(found.table, drivers), found.table.policy.health_check_interval_s)
        drive.swap(found.table, drivers, found.outdated)
        LOG.info(
            "plan %s is in force; added: %s; removed: %s; changed: %s; restarted when idle: %s; %s",
            found.table.plan_hash[:12],
            *(
                ", ".join(names) or "none"
                for names in (found.added, found.removed, found.changed, sorted(found.outdated))
            ),
            f"only a restart changes {'; '.join(found.restart_needed)}"
            if found.restart_needed
            else "no restart needed",
        )

    def _look_at(self, new: RouteTable, drivers: Mapping[str, Driver]) -> Mapping[str, Looked]:
        """Servers elsewhere; one whose route is the same keeps what is known of it."""
        known = self._elsewhere
        self._elsewhere = {
            name: known[name] if name in known and known[name][0] == route else (route, self._drivers.look_at(route))
            for name, route in new.routes.items()
            if name not in drivers
        }
        return {name: looked for name, (_, looked) in self._elsewhere.items()}


def read(routes: Path, stack: Path, environ: Mapping[str, str]) -> Files:
    """The generation that lies there. Raises ContractError with one sentence."""
    for _ in range(READS):
        found = table.load(routes)
        specs = _specs(routes.parent / "exec", found)
        if table.load(routes) == found:
            return Files(found, specs, read_keys(found, stack, environ), read_clients(found, stack, environ))
    raise ContractError(f"{routes} changes while it is read")


def _specs(folder: Path, found: RouteTable) -> Mapping[str, ExecSpec]:
    specs = {}
    for program in {route.program for route in found.routes.values()} - {None}:
        path = folder / f"{program}.json"
        try:
            specs[str(program)] = exec_spec(path.read_text("utf-8"))
        except FileNotFoundError:
            continue  # a program that somebody else wrote the definition of
        except (OSError, ContractError) as error:
            raise ContractError(f"{path}: {error}") from None
    return specs


def in_force(stack: Path) -> Mapping[str, ExecSpec]:
    """What each living program was started from, where the launcher left word of it."""
    found = {}
    for program in processes.recorded(stack):
        try:
            word = json.loads(locations.started_file(stack, program).read_bytes())
            found[program] = exec_spec(json.dumps(word["spec"]))
        except (OSError, ValueError, KeyError, TypeError):  # a ContractError is a ValueError
            continue
    return found


def _told(before: RouteTable, found: Delta, files: Files) -> Mapping[str, Any]:
    return {
        "plan_hash": found.table.plan_hash,
        "previous_plan_hash": before.plan_hash,
        "models": {
            "added": found.added,
            "removed": found.removed,
            "changed": found.changed,
            "restarted_when_idle": sorted(found.outdated),
        },
        "keys_missing": dict(files.keys.missing),
        "restart_needed": found.restart_needed,
    }
