"""What can happen to the scheduler and what it can ask for.

Owns the event and effect values of `runtime.scheduler.step`; plain data, no behaviour. Whoever performs a
`Start` or `Stop` must answer it with exactly one of the events named there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

RefuseCode = Literal[
    "queue_full", "queue_timeout", "start_failed", "model_resting", "cannot_be_loaded", "shutting_down"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Arrive:
    """A request wants one of `models`, best first, and waits until `deadline` at most."""

    request: str
    models: tuple[str, ...]
    deadline: float


@dataclass(frozen=True, slots=True)
class Finish:
    """A granted request is over; `ok` when the backend served it."""

    request: str
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Cancel:
    """The client of a request is gone, waiting or granted."""

    request: str


@dataclass(frozen=True, slots=True)
class Adopt:
    """What runs already, seen once at start; models that are not named are stopped."""

    observed: Mapping[str, Literal["starting", "ready"]]


@dataclass(frozen=True, slots=True)
class Ready:
    """The model answers with its identity."""

    model: str


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The model did not become ready."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The model is gone and its memory is free."""

    model: str


@dataclass(frozen=True, slots=True)
class StopFailed:
    """The model could not be stopped; it still holds its memory."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Died:
    """A ready model's process is gone or does not serve any more."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unload:
    """A person wants the model gone as soon as it is idle, also a kept one."""

    model: str


@dataclass(frozen=True, slots=True)
class Drain:
    """The proxy is about to end: refuse who waits, start nothing."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start the model; answer with Ready or StartFailed."""

    model: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the model and all that is left of it; answer with Stopped or StopFailed."""

    model: str


@dataclass(frozen=True, slots=True)
class Grant:
    """The request may use the model until it sends Finish or Cancel."""

    request: str
    model: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request gets an error; `retry_after_s` None means that a later try is no better."""

    request: str
    code: RefuseCode
    reason: str
    retry_after_s: float | None


Event = Arrive | Finish | Cancel | Adopt | Ready | StartFailed | Stopped | StopFailed | Died | Unload | Drain | Tick
Effect = Start | Stop | Grant | Refuse
