"""What can happen to the scheduler and what it can ask for.

Owns the event and effect values of `runtime.scheduler`; plain data, no behaviour. Whoever performs `Start`, `Stop`,
`Sleep`, `Wake` or `Reclaim` must answer it with exactly one of the events named there, late or early. `call` and
`request` are ids of the caller: each gets exactly one final answer. Times are seconds on a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from imageworks.runtime.leases import Lease, LeaseAsk
    from imageworks.runtime.residency import Machine

RefuseCode = Literal[
    "queue_full", "queue_timeout", "start_failed", "model_resting", "model_fatal", "cannot_be_loaded", "shutting_down",
    "lease_blocks", "stale_token", "model_removed",
]  # fmt: skip
DenyCode = Literal[
    "invalid", "impossible", "busy", "unknown_lease", "stale_token", "not_owner", "state_unwritable", "gpu_lost",
    "not_reconciled", "shutting_down",
]  # fmt: skip
EndCause = Literal["released", "forced", "expired", "holder_gone", "handed_over", "unsaved", "gpu_lost"]


# requests


@dataclass(frozen=True, slots=True)
class Arrive:
    """A request wants one of `models`, best first, and waits until `deadline` at most.

    A higher `priority` is served first. `lease` is the lease that the request runs under, with the token it shows
    (`X-GPU-Lease-Token`): it may use what that lease holds.
    """

    request: str
    models: tuple[str, ...]
    deadline: float
    priority: int = 0
    lease: str | None = None
    token: int | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """A granted request is over; `ok` when the backend served it."""

    request: str
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Cancel:
    """The client of a request is gone, waiting or granted."""

    request: str


# models


@dataclass(frozen=True, slots=True)
class Adopt:
    """What runs already and what was held, seen once at start; models that are not named are stopped.

    `tokens` is the highest fencing token ever given per GPU slot, `load_s` the measured load times; `leases` were live
    when the last life ended: each has a whole ttl from now to be renewed.
    """

    observed: Mapping[str, Literal["starting", "ready", "asleep"]]
    leases: tuple[Lease, ...] = ()
    tokens: Mapping[int, int] = field(default_factory=dict)
    load_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ready:
    """The model answers with its identity, after a start or a wake."""

    model: str


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The model did not become ready. `again`: the cause was the neighbourhood, not the model; try at once, once."""

    model: str
    reason: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class Stopped:
    """The model's whole process tree is gone. Its memory is free when a reading shows it (where there are readings)."""

    model: str


@dataclass(frozen=True, slots=True)
class StopFailed:
    """The model could not be stopped; it still holds its memory."""

    model: str
    reason: str
    pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Slept:
    """The model sleeps, verified; it holds `Spec.asleep_mib` now."""

    model: str


@dataclass(frozen=True, slots=True)
class SleepFailed:
    """The model did not fall asleep or did not give its memory back: it is stopped instead."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class WakeFailed:
    """The model did not wake well: it is stopped and started instead."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Died:
    """A model's process is gone, or it does not serve any more."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unload:
    """A person wants the model gone as soon as it is idle, also a kept one."""

    model: str


# memory


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a GPU, in MiB. `foreign_mib` is what processes hold that are not ours, None where pids tell nothing."""

    total_mib: int
    used_mib: int
    foreign_mib: int | None = None
    pids: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """Readings by GPU slot. None: that GPU did not answer; `lost` slots will not come back in this life."""

    readings: Mapping[int, Reading | None]
    lost: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Pardon:
    """A person says that what is quarantined there is free, whatever is measured. `holder` is a model or a lease id."""

    holder: str
    actor: str


# leases


@dataclass(frozen=True, slots=True)
class Acquire:
    """A client wants a lease and waits for it until `deadline`. The same `ask.request` again gets the same lease."""

    call: str
    ask: LeaseAsk
    deadline: float


@dataclass(frozen=True, slots=True)
class Renew:
    """The holder lives: the ttl begins anew."""

    call: str
    lease: str
    token: int


@dataclass(frozen=True, slots=True)
class Release:
    """The holder is done and uses nothing any more. Again is no error."""

    call: str
    lease: str
    token: int


@dataclass(frozen=True, slots=True)
class ForceRelease:
    """A person ends a lease; its memory is free once that is proved."""

    call: str
    lease: str
    actor: str


@dataclass(frozen=True, slots=True)
class Handover:
    """The holder passes its lease on: to another owner (new token, the old one is stale) or to a model that is loaded next."""

    call: str
    lease: str
    token: int
    owner: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class HolderGone:
    """The process that held the lease ended without releasing it."""

    lease: str


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """Nothing of the lease's process tree is left."""

    lease: str


@dataclass(frozen=True, slots=True)
class ReclaimFailed:
    """Processes of the lease do not end."""

    lease: str
    reason: str
    pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Unsaved:
    """A lease that was just granted could not be written down, so it must not be."""

    lease: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The client of a waiting Acquire is gone."""

    call: str


# the whole


@dataclass(frozen=True, slots=True)
class Reload:
    """Another plan is in force: models that it does not know are stopped when idle, new ones are known."""

    machine: Machine


@dataclass(frozen=True, slots=True)
class Drain:
    """The proxy is about to end: refuse who waits, start nothing."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


# effects


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


Event = (
    Arrive | Finish | Cancel | Adopt | Ready | StartFailed | Stopped | StopFailed | Slept | SleepFailed | WakeFailed
    | Died | Unload | Measured | Pardon | Acquire | Renew | Release | ForceRelease | Handover | HolderGone | Reclaimed
    | ReclaimFailed | Unsaved | Withdraw | Reload | Drain | Tick
)  # fmt: skip
Effect = (
    Start | Stop | Sleep | Wake | Grant | Refuse | WouldBlock | LeaseGranted | LeaseQueued | LeaseAnswered | LeaseDenied
    | LeaseEnded | Reclaim | Moved
)  # fmt: skip
