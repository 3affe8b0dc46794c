"""Programs under supervisord, asked over its unix socket.

Owns an XML-RPC client small enough to be read at once (aiohttp for the socket, xmlrpc.client for the bytes) and the
control over it. supervisord answers from one thread: nothing here asks it to wait, states are read again instead. A
call without an answer may have been done or not: the state is read, never assumed. Program names come from the
routing table, never from a client.
"""

from __future__ import annotations

import asyncio
import time
import xmlrpc.client
from pathlib import Path
from typing import Any

import aiohttp

from imageworks.contract import Route
from imageworks.runtime.backends.protocol import DriverError, Status, UnansweredError

CALL_S = 10.0
PAUSE_S = 0.05
SETTLE_S = 30.0
"""Longest wait for supervisord to say what a program's state is, while it is stopping or gives no clear answer."""
ALREADY_STARTED, NOT_RUNNING, BAD_NAME, SHUTDOWN_STATE = 60, 70, 10, 6
"""Fault codes of supervisor.xmlrpc.Faults."""
_RUNNING = frozenset({"STARTING", "RUNNING"})
# UNKNOWN is supervisord's word for a state it lost: it is read again, as alive, until it settles
_ALIVE = _RUNNING | {"STOPPING", "UNKNOWN"}
_UNAUTHORIZED = 401
_SIGNALLED = -1
"""What supervisord gives as the exit status of a process that a signal ended (supervisor.options.decode_wait_status)."""


class Supervisor:
    """The supervisord behind one socket; close it in the end."""

    def __init__(self, socket: Path, call_s: float = CALL_S) -> None:
        self._socket = socket
        connector = aiohttp.UnixConnector(path=str(socket), limit=4, force_close=True)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=call_s))

    async def close(self) -> None:
        """Give the connections back."""
        await self._session.close()

    async def call(self, method: str, *arguments: str | bool) -> Any:
        """Call `supervisor.<method>`. Raises xmlrpc.client.Fault for its refusals, DriverError when it is not there.

        UnansweredError: it was asked and gave no answer.
        """
        body = xmlrpc.client.dumps(arguments, f"supervisor.{method}")
        headers = {"Content-Type": "text/xml"}
        try:
            async with self._session.post("http://supervisor/RPC2", data=body.encode(), headers=headers) as answer:
                answer.raise_for_status()
                return xmlrpc.client.loads((await answer.read()).decode())[0][0]
        except aiohttp.ClientConnectorError as error:
            raise DriverError(self._silence(error)) from None
        except aiohttp.ClientResponseError as error:
            if error.status == _UNAUTHORIZED:
                raise DriverError(
                    f"supervisord at {self._socket} wants a password: it is not one that imageworks started"
                ) from None
            raise UnansweredError(self._silence(error)) from None
        except (aiohttp.ClientError, TimeoutError, OSError, xmlrpc.client.ResponseError) as error:
            raise UnansweredError(self._silence(error)) from None

    def _silence(self, error: Exception) -> str:
        detail = str(error) or type(error).__name__
        return f"supervisord does not answer at {self._socket} ({detail}); start it with: imageworks up"


class Supervised:
    """One program under supervisord."""

    def __init__(self, supervisor: Supervisor, route: Route) -> None:
        self._supervisor, self._program = supervisor, route.program or ""
        self._stop_timeout_s = route.stop_timeout_s

    async def start(self) -> None:
        """Start the program without waiting for it; what is still stopping is let end first."""
        until = time.monotonic() + SETTLE_S
        while True:
            state = await self._state(until)
            if state in _RUNNING:
                return
            if state != "STOPPING" and await self._ask("startProcess", ALREADY_STARTED, until):
                return
            if time.monotonic() >= until:
                raise DriverError(f"supervisord did not start {self._program} within {SETTLE_S:g} s (it is {state})")
            await asyncio.sleep(PAUSE_S)

    async def stop(self) -> None:
        """Stop the program and wait until supervisord says so."""
        until = time.monotonic() + self._stop_timeout_s
        asked = False
        while (state := await self._state(until)) in _ALIVE:
            if time.monotonic() >= until:
                raise DriverError(f"{self._program} did not end within {self._stop_timeout_s:g} s")
            if not asked and state != "STOPPING":
                asked = await self._ask("stopProcess", NOT_RUNNING, until)
            await asyncio.sleep(PAUSE_S)

    async def status(self) -> Status:
        """Supervisord's word for the program."""
        try:
            info = await self._supervisor.call("getProcessInfo", self._program)
        except xmlrpc.client.Fault as fault:
            raise self._refusal(fault) from None
        alive = info["statename"] in _ALIVE
        killed = not alive and info.get("exitstatus") == _SIGNALLED
        ending = info["statename"] == "STOPPING"
        return Status(alive, f"{info['statename']}: {info['description']}", killed, ending)

    async def _state(self, until: float) -> str:
        """The state's name; asks again up to `until` while there is no answer."""
        while True:
            try:
                return (await self.status()).note.partition(":")[0]
            except UnansweredError:
                if time.monotonic() >= until:
                    raise
            await asyncio.sleep(PAUSE_S)

    async def _ask(self, method: str, done_already: int, until: float) -> bool:
        """True when it is done or was done already, False when only the state can tell. Raises DriverError."""
        try:
            await self._supervisor.call(method, self._program, False)  # noqa: FBT003 - its positional `wait`
        except UnansweredError:
            return False
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == done_already:
                return True
            error = self._refusal(fault)
            if isinstance(error, UnansweredError) and time.monotonic() < until:
                return False
            raise error from None
        return True

    def _refusal(self, fault: xmlrpc.client.Fault) -> DriverError:
        if fault.faultCode == BAD_NAME:
            return DriverError(
                f"supervisord does not know {self._program}: it runs another profile or an older compile; restart it: imageworks down, imageworks up"
            )
        if fault.faultCode == SHUTDOWN_STATE:
            return UnansweredError(
                f"supervisord is shutting down or reading its file anew ({self._program}); start it with: imageworks up"
            )
        return DriverError(f"supervisord refused {self._program}: {fault.faultString}")
