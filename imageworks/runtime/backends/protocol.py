"""What the runtime asks of a model's process control and server, whatever they are.

Owns the `Driver` protocol, the values and the errors. A driver is bound to one model, blocks no event loop, and
every call of it ends within a bounded time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from imageworks.runtime.events import Reading

Readings = Callable[[], Awaitable[Mapping[int, Reading | None] | None]]
"""A fresh look at the memory of every GPU slot, taken after the call; None for a GPU that does not answer, and None as a
whole on a machine where nothing can be measured: there memory is accounted only."""


class DriverError(Exception):
    """Process control failed; the message is one sentence for the user. `pids` would not end."""

    def __init__(self, message: str, pids: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.pids = pids


class UnansweredError(DriverError):
    """Process control was asked and gave no answer: whether it did what was asked is unknown."""


class SleepError(DriverError):
    """A model did not fall asleep or wake as it must; stopping and starting it is what is left."""


class StartError(Exception):
    """A model did not become ready; the message is the root cause, for the user.

    `again`: the cause was the neighbourhood of that moment, not the model, so one more try is worth it.
    """

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


@dataclass(frozen=True, slots=True)
class Status:
    """`alive`: the process is there (or the model is loaded); `note` says what process control calls it.

    `signalled`: it is gone, and a signal ended it. `ending`: it is there, and was told to go.
    """

    alive: bool
    note: str
    signalled: bool = False
    ending: bool = False

    def why(self, said: str | None) -> str:
        """Why it ended, for the user; `said` is the line of its log that speaks of an error."""
        how = "a signal ended it, as the kernel does when memory runs out" if self.signalled else self.note
        if said is None:
            return f"its process ended by itself ({how})"
        return f"{said} ({how})" if self.signalled else said


Answering = Literal["ok", "failing", "silent", "absent"]


@dataclass(frozen=True, slots=True)
class Look:
    """What the health endpoint said: `failing` is a server error, `silent` no answer in time, `absent` nobody there."""

    answering: Answering
    note: str = ""


class Control(Protocol):
    """Starts and stops one program."""

    async def start(self) -> None:
        """Ask for the start and return; one that runs already is left alone. Raises DriverError."""
        ...

    async def stop(self) -> None:
        """Return when the program is gone for process control. Raises DriverError when it stays or nothing is known."""
        ...

    async def status(self) -> Status:
        """Look now. Raises DriverError when process control does not answer."""
        ...


class Driver(Protocol):
    """Start, stop, put to sleep and watch one model."""

    async def start(self) -> None:
        """Ask for the start and return; one that runs already is left alone. Raises DriverError."""
        ...

    async def stop(self) -> None:
        """Return when its whole process tree is gone; gone already is no error. Raises DriverError with what stays."""
        ...

    async def status(self) -> Status:
        """Look now. Raises DriverError when process control does not answer."""
        ...

    async def ready(self) -> bool:
        """Does it answer with its identity now? Never raises for a server that is not there yet."""
        ...

    def obstacle(self) -> str:
        """What stood in the way when `ready` was asked last; empty where there is nothing to say."""
        ...

    def log(self) -> str:
        """The end of what it printed in this life, for the root cause; empty where there is no log."""
        ...

    async def pids(self) -> tuple[int, ...]:
        """Every process of it that can be seen, in whatever session; empty where they are not ours."""
        ...

    async def sleep(self, level: int) -> None:
        """Return when it sleeps and its memory is seen free; nothing is in flight. Raises SleepError."""
        ...

    async def wake(self) -> None:
        """Return when it answers as it did before it slept. Raises SleepError."""
        ...

    async def asleep(self) -> bool:
        """Does it sleep now? False also where it cannot."""
        ...

    async def look(self) -> Look:
        """Ask its health endpoint, once."""
        ...

    async def canary(self, timeout_s: float) -> bool | None:
        """Let it generate one token of a text that nobody asked before; None where it cannot be asked that."""
        ...
