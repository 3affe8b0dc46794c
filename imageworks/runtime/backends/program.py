"""A model that is a program of ours: its control, its server and its whole process tree together.

Owns the driver over any process control. Before a start: nothing of an earlier life may be left, and nobody else may
have the port. Ready is: it serves its model's name from its own process, and (once in a life that we began) computes a
token. A stop is over when every process of the tree is gone, also those that left the group. Holds no policy.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from imageworks.contract import Route
from imageworks.runtime import processes, sockets
from imageworks.runtime.backends.logs import LifeLog
from imageworks.runtime.backends.protocol import Control, DriverError, Look, Readings, SleepError, Status
from imageworks.runtime.backends.server import Server
from imageworks.runtime.backends.vllm import SleepMode
from imageworks.runtime.leases import Holder

LOG = logging.getLogger(__name__)
SWEEP_GRACE_S = 2.0
"""What survivors of a stop get between SIGTERM and SIGKILL; the program itself had its own time."""
FIRST_TOKEN_S = 180.0
"""Longest wait for the first token of a life: vLLM compiles on the first request."""


class Program:
    """One program under `control`; `http` reaches its server, `log` is its log file, `stack` the stack's folder."""

    def __init__(
        self,
        control: Control,
        http: aiohttp.ClientSession,
        route: Route,
        *,
        log: Path,
        stack: Path,
        readings: Readings | None = None,
    ) -> None:
        self._control, self._route, self._stack = control, route, stack
        self._program = route.program or ""
        self._log, self._server = LifeLog(log), Server(http, route)
        self._sleep = SleepMode(http, route, readings) if route.sleep != "none" else None
        self._computes, self._obstacle = True, ""
        where = urlsplit(route.url)
        self._host, self._port = where.hostname or "127.0.0.1", where.port or 80

    async def start(self) -> None:
        """Start the program without waiting for it."""
        self._log.mark()
        self._obstacle = ""
        if not (await self._control.status()).alive:
            await self._clear()
            self._computes = False
            if self._sleep is not None:
                self._sleep.forget()
        await self._control.start()

    async def stop(self) -> None:
        """Stop the program; whatever of its tree is left then is swept."""
        tree = await self._tree()
        problem: DriverError | None = None
        try:
            await self._control.stop()
        except DriverError as error:
            problem = error
        grace_s = SWEEP_GRACE_S if problem is None else self._route.stop_timeout_s / 2
        await self._sweep(tree, grace_s)
        if problem is not None and not tree and (await self._control.status()).alive:
            raise problem
        if problem is not None:
            LOG.warning("%s: ended without process control: %s", self._program, problem)

    async def status(self) -> Status:
        """Process control's word."""
        return await self._control.status()

    async def ready(self) -> bool:
        """Readiness by identity."""
        names = await self._server.names()
        if names is None:
            self._obstacle = ""
            return False
        if self._route.served_name not in names:
            self._obstacle = f"{self._route.url} serves {', '.join(names) or 'no model'}, not {self._route.served_name}"
            return False
        return await self._owns_port() and await self._computes_now()

    def obstacle(self) -> str:
        """Who answers instead, where somebody does."""
        return self._obstacle

    def log(self) -> str:
        """The program's log in this life."""
        return self._log.text()

    async def pids(self) -> tuple[int, ...]:
        """Its processes."""
        return tuple(holder.pid for holder in await self._tree())

    async def sleep(self, level: int) -> None:
        """Fall asleep, verified."""
        if self._sleep is None:
            raise SleepError(f"{self._route.id} has no sleep mode")
        await self._sleep.sleep(level, await self.pids())

    async def wake(self) -> None:
        """Wake, verified."""
        if self._sleep is None:
            raise SleepError(f"{self._route.id} has no sleep mode")
        await self._sleep.wake()

    async def asleep(self) -> bool:
        """Does it say that it sleeps?"""
        return self._sleep is not None and await self._sleep.asleep()

    async def look(self) -> Look:
        """Its /health."""
        return await self._server.look()

    async def canary(self, timeout_s: float) -> bool | None:
        """One token."""
        return await self._server.canary(timeout_s)

    async def _tree(self) -> tuple[Holder, ...]:
        return await asyncio.to_thread(processes.left_of, self._stack, self._program)

    async def _clear(self) -> None:
        """Nothing of an earlier life may hold the memory or the port that this one needs."""
        if left := await self._tree():
            LOG.warning("%s: %d processes of an earlier life are ended", self._program, len(left))
            await self._sweep(left, SWEEP_GRACE_S)
        taken = await asyncio.to_thread(sockets.who, self._port, self._host)
        if taken:
            raise DriverError(f"port {self._port} is taken by {taken}; end it, or give {self._route.id} another port")

    async def _sweep(self, tree: tuple[Holder, ...], grace_s: float) -> None:
        """End what is alive of `tree` and what carries the program's mark. Raises DriverError with who stays."""

        def find() -> tuple[Holder, ...]:
            known = (holder for holder in tree if processes.alive(holder))
            return tuple(dict.fromkeys([*known, *processes.left_of(self._stack, self._program)]))

        left = await asyncio.to_thread(processes.end, find, grace_s)
        if left:
            pids = tuple(holder.pid for holder in left)
            who = ", ".join(sockets.name(pid) for pid in pids)
            raise DriverError(f"{self._program}: processes do not end: {who}", pids)

    async def _owns_port(self) -> bool:
        """Is the one that answers our own process? What cannot be seen is not held against it."""
        pids = await self.pids()
        if await asyncio.to_thread(sockets.owned, self._port, pids, self._host) is not False:
            return True
        who = await asyncio.to_thread(sockets.who, self._port, self._host)
        self._obstacle = f"port {self._port} is held by {who or 'nobody any more'}, not by {self._program}"
        return False

    async def _computes_now(self) -> bool:
        """Only once in a life that we began: at an adoption the engine may be busy with long work."""
        if not self._computes:
            self._computes = await self._server.canary(FIRST_TOKEN_S) is not False
            self._obstacle = "" if self._computes else "it serves its name, but computes no token"
        return self._computes
