"""Which driver drives a route.

Owns the choice (program under the chosen init system, Ollama tag, or none for a server elsewhere) and the
connection to process control. Holds no policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import aiohttp

from imageworks import locations
from imageworks.contract import Route
from imageworks.runtime.backends.ollama import OllamaModel
from imageworks.runtime.backends.protocol import Driver
from imageworks.runtime.backends.supervisor import Supervised, Supervisor
from imageworks.runtime.backends.systemd import Unit

SYSTEMCTL: Mapping[str, tuple[str, ...]] = {
    "systemd-user": ("systemctl", "--user"),
    "systemd-system": ("systemctl",),
}
SUPERVISORD = "supervisord"


class Drivers:
    """Drivers of all managed routes; a remote route has none."""

    def __init__(self, routes: Mapping[str, Route], stack: Path, init: str, http: aiohttp.ClientSession) -> None:
        self._supervisor = Supervisor(locations.control_socket(stack)) if init == SUPERVISORD else None
        self._stack, self._init, self._http = stack, init, http
        found = {name: self._driver(route) for name, route in routes.items()}
        self.by_model: Mapping[str, Driver] = {name: driver for name, driver in found.items() if driver is not None}

    def _driver(self, route: Route) -> Driver | None:
        if route.program is None:
            return OllamaModel(self._http, route) if route.backend == "ollama" else None
        log = locations.program_log(self._stack, route.program)
        if self._supervisor is not None:
            return Supervised(self._supervisor, self._http, route, log)
        return Unit(SYSTEMCTL[self._init], self._http, route, log)

    async def close(self) -> None:
        """Give the connection to process control back."""
        if self._supervisor is not None:
            await self._supervisor.close()
