"""What the runtime asks of process control, whatever it is.

Owns the `Driver` protocol, `Status` and the errors. A driver is bound to one model, blocks no event loop, and
every call of it ends within a bounded time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class DriverError(Exception):
    """Process control failed; the message is one sentence for the user."""


class StartError(Exception):
    """A model did not become ready; the message is the root cause, for the user."""


@dataclass(frozen=True, slots=True)
class Status:
    """`alive`: the process is there (or the model is loaded); `note` says what process control calls it."""

    alive: bool
    note: str


class Driver(Protocol):
    """Start, stop and watch one model."""

    async def start(self) -> None:
        """Ask for the start and return; one that runs already is left alone. Raises DriverError."""
        ...

    async def stop(self) -> None:
        """Return when it is gone; one that is gone already is no error. Raises DriverError when it stays."""
        ...

    async def status(self) -> Status:
        """Look now. Raises DriverError when process control does not answer."""
        ...

    async def ready(self) -> bool:
        """Does it answer with its identity now? Never raises for a server that is not there yet."""
        ...

    def log(self) -> str:
        """The end of what it printed in this life, for the root cause; empty where there is no log."""
        ...
