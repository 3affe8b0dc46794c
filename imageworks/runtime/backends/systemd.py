"""Programs as systemd units, through systemctl.

Owns the driver over `systemctl [--user] start|stop|is-active`; a unit is named like its program. Stopping waits
in systemd itself (its TimeoutStopSec ends in SIGKILL), bounded here by the route's stop timeout.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from imageworks.contract import Route
from imageworks.runtime.backends.logs import LifeLog
from imageworks.runtime.backends.probe import serves
from imageworks.runtime.backends.protocol import DriverError, Status

CALL_S = 30.0
_ALIVE = frozenset({"active", "activating", "reloading", "deactivating"})


class Unit:
    """One unit; `systemctl` is the command with its scope."""

    def __init__(self, systemctl: tuple[str, ...], http: aiohttp.ClientSession, route: Route, log: Path) -> None:
        self._systemctl, self._http, self._route = systemctl, http, route
        self._unit = f"{route.program}.service"
        self._log = LifeLog(log)

    async def start(self) -> None:
        """Start the unit without waiting for it."""
        self._log.mark()
        await self._run(
            CALL_S, "reset-failed", self._unit
        )  # a start limit that was hit would refuse; failing is no news
        code, said = await self._run(CALL_S, "start", "--no-block", self._unit)
        if code:
            raise DriverError(f"systemd refused to start {self._unit}: {said}")

    async def stop(self) -> None:
        """Stop the unit; systemd ends its whole cgroup."""
        code, said = await self._run(self._route.stop_timeout_s, "stop", self._unit)
        if code:
            raise DriverError(f"systemd could not stop {self._unit}: {said}")

    async def status(self) -> Status:
        """Systemd's word for the unit."""
        _, said = await self._run(CALL_S, "is-active", self._unit)
        return Status(said in _ALIVE, said)

    async def ready(self) -> bool:
        """Readiness by identity."""
        return await serves(self._http, self._route)

    def log(self) -> str:
        """The program's log in this life."""
        return self._log.text()

    async def _run(self, timeout_s: float, *words: str) -> tuple[int, str]:
        command = [*self._systemctl, *words]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        except OSError as error:
            raise DriverError(f"{command[0]}: {error.strerror}") from None
        try:
            async with asyncio.timeout(timeout_s):
                said, _ = await process.communicate()
        except TimeoutError:
            raise DriverError(f"`{' '.join(command)}` took longer than {timeout_s:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode or 0, said.decode(errors="replace").strip()
