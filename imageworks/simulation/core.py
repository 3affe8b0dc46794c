"""The scheduler as a simulated world sees it: the real one, or one with a planted bug.

Owns the protocol and `Real`, which hands everything to `runtime.scheduler` as it is.
"""

from __future__ import annotations

from typing import Any, Protocol

from imageworks.runtime import events as ev
from imageworks.runtime import scheduler
from imageworks.runtime.residency import Machine
from imageworks.runtime.snapshot import Gpus


class Core(Protocol):
    """The scheduler as the manager uses it."""

    def initial(self, machine: Machine) -> Any:
        """The state before anything is known."""

    def step(self, state: Any, event: ev.Event, now: float) -> tuple[Any, tuple[ev.Effect, ...]]:
        """Apply one event."""

    def next_deadline(self, state: Any, now: float) -> float | None:
        """When a Tick is due."""

    def view(self, state: Any) -> Gpus:
        """A snapshot of all GPUs."""


class Real:
    """The scheduler of the runtime."""

    @staticmethod
    def initial(machine: Machine) -> scheduler.State:
        """The state before anything is known."""
        return scheduler.initial(machine)

    @staticmethod
    def step(state: scheduler.State, event: ev.Event, now: float) -> tuple[scheduler.State, tuple[ev.Effect, ...]]:
        """Apply one event."""
        return scheduler.step(state, event, now)

    @staticmethod
    def next_deadline(state: scheduler.State, now: float) -> float | None:
        """When a Tick is due."""
        return scheduler.next_deadline(state, now)

    @staticmethod
    def view(state: scheduler.State) -> Gpus:
        """A snapshot of all GPUs."""
        return scheduler.view(state)
