"""Programs as systemd units, through systemctl.

Owns the control over `systemctl [--user] start|stop|is-active`; a unit is named like its program. Stopping waits
in systemd itself (its TimeoutStopSec ends in SIGKILL of the whole cgroup), bounded here by the route's stop timeout.
"""

from __future__ import annotations

import asyncio

from imageworks.contract import Route
from imageworks.runtime.backends.protocol import DriverError, Status, UnansweredError

CALL_S = 30.0
_ALIVE = frozenset({"active", "activating", "reloading", "refreshing", "deactivating"})
_GONE = frozenset({"inactive", "failed"})


class Unit:
    """One unit; `systemctl` is the command with its scope."""

    def __init__(self, systemctl: tuple[str, ...], route: Route) -> None:
        self._systemctl, self._stop_timeout_s = systemctl, route.stop_timeout_s
        self._unit = f"{route.program}.service"

    async def start(self) -> None:
        """Start the unit without waiting for it."""
        # a start limit that was hit would refuse; failing is no news
        await self._run(CALL_S, "reset-failed", self._unit)
        code, said = await self._run(CALL_S, "start", "--no-block", self._unit)
        if code:
            raise DriverError(f"systemd refused to start {self._unit}: {said}")

    async def stop(self) -> None:
        """Stop the unit; systemd ends its whole cgroup."""
        code, said = await self._run(self._stop_timeout_s, "stop", self._unit)
        if code:
            raise DriverError(f"systemd could not stop {self._unit}: {said}")

    async def status(self) -> Status:
        """Systemd's word for the unit; a word that is none of its states is no answer."""
        _, said = await self._run(CALL_S, "is-active", self._unit)
        if said not in _ALIVE | _GONE:
            raise UnansweredError(f"systemd does not say what {self._unit} is: {said or 'no word'}")
        return Status(said in _ALIVE, said, ending=said == "deactivating")

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
            raise UnansweredError(f"`{' '.join(command)}` took longer than {timeout_s:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode or 0, said.decode(errors="replace").strip()
