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
from imageworks.runtime.backends.elsewhere import Elsewhere
from imageworks.runtime.backends.ollama import OllamaModel
from imageworks.runtime.backends.program import Program
from imageworks.runtime.backends.protocol import Control, Driver, Readings
from imageworks.runtime.backends.supervisor import Supervised, Supervisor
from imageworks.runtime.backends.systemd import Unit

SYSTEMCTL: Mapping[str, tuple[str, ...]] = {
    "systemd-user": ("systemctl", "--user"),
    "systemd-system": ("systemctl",),
}
SUPERVISORD = "supervisord"


class Drivers:
    """Drivers of all managed routes; a remote route has none, it is only looked at (`elsewhere`).

    `readings` lets them prove that memory came back; without them it is only accounted.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        stack: Path,
        init: str,
        http: aiohttp.ClientSession,
        readings: Readings | None = None,
    ) -> None:
        self._supervisor = Supervisor(locations.control_socket(stack)) if init == SUPERVISORD else None
        self._stack, self._init, self._http, self._readings = stack, init, http, readings
        found = {name: self.make(route) for name, route in routes.items()}
        self.by_model: Mapping[str, Driver] = {name: driver for name, driver in found.items() if driver is not None}
        self.elsewhere: Mapping[str, Elsewhere] = {
            name: self.look_at(routes[name]) for name, driver in found.items() if driver is None
        }

    def look_at(self, route: Route) -> Elsewhere:
        """What a server that is not ours is looked at with."""
        return Elsewhere(self._http, route)

    def make(self, route: Route) -> Driver | None:
        """The driver of a route; None for a server that is not ours."""
        if route.program is None:
            return OllamaModel(self._http, route, self._readings) if route.backend == "ollama" else None
        log = locations.program_log(self._stack, route.program)
        return Program(self._control(route), self._http, route, log=log, stack=self._stack, readings=self._readings)

    def _control(self, route: Route) -> Control:
        if self._supervisor is not None:
            return Supervised(self._supervisor, route)
        return Unit(SYSTEMCTL[self._init], route)

    async def close(self) -> None:
        """Give the connection to process control back."""
        if self._supervisor is not None:
            await self._supervisor.close()
