"""Which driver and route each model's present life has, and which its next life begins with.

Owns that pairing over reloads: a life is watched, stopped and asked through what it was begun with; what a later
routing table says of the model counts from its next start. Decides nothing and does no I/O.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from imageworks.contract import Route
from imageworks.runtime.backends.protocol import Driver


class Lineup(Mapping[str, Driver]):
    """The drivers of the present lives, by model, also of models that are on their way out of the plan."""

    def __init__(self, drivers: Mapping[str, Driver], routes: Mapping[str, Route]) -> None:
        self._drivers = dict(drivers)
        self._routes = {name: routes[name] for name in drivers}
        self._next: dict[str, tuple[Driver, Route]] = {}

    def __getitem__(self, model: str) -> Driver:
        return self._drivers[model]

    def __iter__(self) -> Iterator[str]:
        return iter(self._drivers)

    def __len__(self) -> int:
        return len(self._drivers)

    def route(self, model: str) -> Route:
        """What the present life of a managed model was begun with."""
        return self._routes[model]

    def newest(self, model: str) -> tuple[Driver, Route] | None:
        """What its next life begins with; None for a model without a driver."""
        if model in self._next:
            return self._next[model]
        return (self._drivers[model], self._routes[model]) if model in self._drivers else None

    def use(self, drivers: Mapping[str, Driver], routes: Mapping[str, Route], living: Container[str]) -> None:
        """Another plan: `living` models keep what they have until their next start, those gone from both are forgotten."""
        for name in [name for name in self._drivers if name not in drivers and name not in living]:
            del self._drivers[name], self._routes[name]
        self._next = {name: (driver, routes[name]) for name, driver in drivers.items()}
        for name in tuple(self._next):
            if name not in self._drivers or name not in living:
                self.begin(name)

    def begin(self, model: str) -> None:
        """A new life begins."""
        if model in self._next:
            self._drivers[model], self._routes[model] = self._next.pop(model)
