"""What the parts of a simulated world know of each other.

Owns the protocols through which the manager, the callers and the lease holders meet, so that none imports the others.
"""

from __future__ import annotations

from typing import Protocol

from imageworks.runtime import events as ev
from imageworks.runtime.leases import Lease
from imageworks.runtime.residency import Machine
from imageworks.simulation.agenda import Agenda
from imageworks.simulation.cards import Cards
from imageworks.simulation.core import Core
from imageworks.simulation.judge import Judge
from imageworks.simulation.programs import Programs, Tell
from imageworks.simulation.scenario import Scenario
from imageworks.simulation.store import Store


class Manager(Protocol):
    """One life of the manager as clients see it."""

    alive: bool

    def clock(self) -> float:
        """The scheduler's time."""

    def say(self, event: ev.Event) -> None:
        """Tell the scheduler."""

    def may_forward(self, request: str, model: str, life: int) -> bool:
        """Is the grant still good?"""


class RequestSide(Protocol):
    """Clients that send requests."""

    def granted(self, effect: ev.Grant) -> None:
        """Yes."""

    def refused(self, effect: ev.Refuse) -> None:
        """No."""


class LeaseSide(Protocol):
    """Clients that hold leases."""

    def granted(self, call: str, lease: Lease) -> None:
        """The lease is held."""

    def answered(self, call: str, lease: Lease) -> None:
        """A call was done."""

    def denied(self, call: str, code: str) -> None:
        """A call was refused."""

    def reclaim(self, lease: str, tell: Tell) -> None:
        """End the holder's processes."""

    def breathes(self, lease: str) -> bool:
        """Does the holder's process live?"""

    def shown(self, pick: int) -> tuple[str | None, int | None]:
        """A lease and its token, as a request shows them."""


class Stage:
    """The parts that everybody shares. `machine` and `names` are those of the plan in force."""

    scenario: Scenario
    core: Core
    machine: Machine
    names: tuple[str, ...]
    agenda: Agenda
    store: Store
    cards: Cards
    programs: Programs
    book: Judge
    steps: int

    def manager(self) -> Manager | None:
        """The manager, if one lives."""
        raise NotImplementedError

    def requests(self) -> RequestSide:
        """The clients that send requests."""
        raise NotImplementedError

    def holders(self) -> LeaseSide:
        """The clients that hold leases."""
        raise NotImplementedError

    def wall(self) -> float:
        """What the wall clock says, in seconds."""
        raise NotImplementedError

    def kill(self) -> None:
        """Kill -9 of the manager."""
        raise NotImplementedError
