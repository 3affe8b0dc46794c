"""What the scheduler can ask for and answer.

Owns the effect values of `runtime.scheduler`; plain data, no behaviour. Whoever performs `Start`, `Stop`, `Sleep`, `Wake`
or `Reclaim` answers it with exactly one of the events named there. They are imported from `runtime.events`, as the
events are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from imageworks.runtime.leases import Lease

RefuseCode = Literal[
    "queue_full", "queue_timeout", "start_failed", "model_resting", "model_fatal", "cannot_be_loaded", "shutting_down",
    "lease_blocks", "stale_token", "model_removed",
]  # fmt: skip
DenyCode = Literal[
    "invalid", "impossible", "busy", "unknown_lease", "stale_token", "not_owner", "state_unwritable", "gpu_lost",
    "not_reconciled", "shutting_down",
]  # fmt: skip
EndCause = Literal["released", "forced", "expired", "holder_gone", "handed_over", "unsaved", "gpu_lost"]


@dataclass(frozen=True, slots=True)
class Start:
    """Start the model; answer with Ready or StartFailed. `tokens` fence it, per GPU slot."""

    model: str
    tokens: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the model and all that is left of it; answer with Stopped or StopFailed."""

    model: str


@dataclass(frozen=True, slots=True)
class Sleep:
    """Put the model to sleep, nothing is in flight; answer with Slept or SleepFailed."""

    model: str
    level: int


@dataclass(frozen=True, slots=True)
class Wake:
    """Wake the model; answer with Ready or WakeFailed."""

    model: str
    tokens: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grant:
    """The request may use the model until it sends Finish or Cancel, as long as the model's life is `life`."""

    request: str
    model: str
    life: int = 0


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request gets an error; `retry_after_s` None means that a later try is no better."""

    request: str
    code: RefuseCode
    reason: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class WouldBlock:
    """Where leases are only observed: what would have happened to a request or call, to be logged."""

    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class LeaseGranted:
    """The lease is held from now: write it down, then tell. A lease that was there already is granted again as it is."""

    call: str
    lease: Lease


@dataclass(frozen=True, slots=True)
class LeaseQueued:
    """The call waits, `position` 1 is next; `estimate_s` None where nothing is known. Not a final answer."""

    call: str
    position: int
    estimate_s: float | None


@dataclass(frozen=True, slots=True)
class LeaseAnswered:
    """A renew, release, force or handover was done; `lease` as it is now."""

    call: str
    lease: Lease


@dataclass(frozen=True, slots=True)
class LeaseDenied:
    """The call gets an error and changed nothing."""

    call: str
    code: DenyCode
    reason: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """The lease is over and its memory free: forget it."""

    lease: str
    cause: EndCause


@dataclass(frozen=True, slots=True)
class Reclaim:
    """End what is left of the lease's process tree; answer with Reclaimed or ReclaimFailed."""

    lease: str


@dataclass(frozen=True, slots=True)
class Moved:
    """One line of the transition log: a model or lease went from one state to another, and why."""

    subject: str
    kind: Literal["model", "lease"]
    before: str
    after: str
    cause: str
    tokens: Mapping[int, int] = field(default_factory=dict)


Effect = (
    Start | Stop | Sleep | Wake | Grant | Refuse | WouldBlock | LeaseGranted | LeaseQueued | LeaseAnswered | LeaseDenied
    | LeaseEnded | Reclaim | Moved
)  # fmt: skip
