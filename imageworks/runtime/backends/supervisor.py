"""Programs under supervisord, asked over its unix socket.

Owns an XML-RPC client small enough to be read at once (aiohttp for the socket, xmlrpc.client for the bytes) and
the driver over it. supervisord answers from one thread: nothing here asks it to wait, states are read again
instead. Program names come from the routing table, never from a client.
"""

from __future__ import annotations

import asyncio
import xmlrpc.client
from pathlib import Path
from typing import Any

import aiohttp

from imageworks.contract import Route
from imageworks.runtime.backends.logs import LifeLog
from imageworks.runtime.backends.probe import serves
from imageworks.runtime.backends.protocol import DriverError, Status

CALL_S = 10.0
PAUSE_S = 0.05
ALREADY_STARTED, NOT_RUNNING, BAD_NAME = 60, 70, 10
_ALIVE = frozenset({"STARTING", "RUNNING", "STOPPING"})


class Supervisor:
    """The supervisord behind one socket; close it in the end."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        connector = aiohttp.UnixConnector(path=str(socket), limit=4, force_close=True)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=CALL_S))

    async def close(self) -> None:
        """Give the connections back."""
        await self._session.close()

    async def call(self, method: str, *arguments: str | bool) -> Any:
        """Call `supervisor.<method>`. Raises xmlrpc.client.Fault for its refusals, DriverError when it does not answer."""
        body = xmlrpc.client.dumps(arguments, f"supervisor.{method}")
        headers = {"Content-Type": "text/xml"}
        try:
            async with self._session.post("http://supervisor/RPC2", data=body.encode(), headers=headers) as answer:
                answer.raise_for_status()
                return xmlrpc.client.loads((await answer.read()).decode())[0][0]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            detail = str(error) or type(error).__name__
            raise DriverError(
                f"supervisord does not answer at {self._socket} ({detail}); start it with: imageworks up"
            ) from None


class Supervised:
    """One program; `http` reaches its server."""

    def __init__(self, supervisor: Supervisor, http: aiohttp.ClientSession, route: Route, log: Path) -> None:
        self._supervisor, self._http, self._route = supervisor, http, route
        self._program = route.program or ""
        self._log = LifeLog(log)

    async def start(self) -> None:
        """Start the program without waiting for it."""
        self._log.mark()
        try:
            await self._supervisor.call("startProcess", self._program, False)  # noqa: FBT003 - its positional `wait`
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != ALREADY_STARTED:
                raise DriverError(self._refusal(fault)) from None

    async def stop(self) -> None:
        """Stop the program and wait until supervisord says so."""
        try:
            await self._supervisor.call("stopProcess", self._program, False)  # noqa: FBT003 - its positional `wait`
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != NOT_RUNNING:
                raise DriverError(self._refusal(fault)) from None
        try:
            async with asyncio.timeout(self._route.stop_timeout_s):
                while (await self.status()).alive:  # noqa: ASYNC110 - supervisord offers nothing to wait on
                    await asyncio.sleep(PAUSE_S)
        except TimeoutError:
            raise DriverError(f"{self._program} did not end within {self._route.stop_timeout_s:g} s") from None

    async def status(self) -> Status:
        """Supervisord's word for the program."""
        try:
            info = await self._supervisor.call("getProcessInfo", self._program)
        except xmlrpc.client.Fault as fault:
            raise DriverError(self._refusal(fault)) from None
        # UNKNOWN is supervisord's word for a state it lost: it is read again, as alive, until it settles
        return Status(
            info["statename"] in _ALIVE or info["statename"] == "UNKNOWN", f"{info['statename']}: {info['description']}"
        )

    async def ready(self) -> bool:
        """Readiness by identity."""
        return await serves(self._http, self._route)

    def log(self) -> str:
        """The program's log in this life."""
        return self._log.text()

    def _refusal(self, fault: xmlrpc.client.Fault) -> str:
        if fault.faultCode == BAD_NAME:
            return f"supervisord does not know {self._program}: it runs another profile or an older compile; restart it: imageworks down, imageworks up"
        return f"supervisord refused {self._program}: {fault.faultString}"
