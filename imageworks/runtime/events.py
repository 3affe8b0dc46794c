"""What can happen to the scheduler and what it can ask for.

Owns the event and effect values of `runtime.scheduler`; plain data, no behaviour. Whoever performs `Start`, `Stop`,
`Sleep`, `Wake` or `Reclaim` must answer it with exactly one of the events named there, late or early. `call` and
`request` are ids of the caller: each gets exactly one final answer. Times are seconds on a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from imageworks.runtime.effects import (
    DenyCode,
    Effect,
    EndCause,
    Grant,
    LeaseAnswered,
    LeaseDenied,
    LeaseEnded,
    LeaseGranted,
    LeaseQueued,
    Moved,
    Reclaim,
    Refuse,
    RefuseCode,
    Sleep,
    Start,
    Stop,
    Wake,
    WouldBlock,
)

if TYPE_CHECKING:
    from imageworks.runtime.leases import Lease, LeaseAsk
    from imageworks.runtime.residency import Machine

__all__ = [
    "DenyCode", "Effect", "EndCause", "Grant", "LeaseAnswered", "LeaseDenied", "LeaseEnded", "LeaseGranted", "LeaseQueued", "Moved", "Reclaim", "Refuse", "RefuseCode", "Sleep", "Start", "Stop", "Wake", "WouldBlock",
]  # fmt: skip


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
    """Another plan is in force: models that it does not know are stopped when idle, new ones are known.

    Those of `outdated` run as they should not any more: their requests end in this life, others wait for the next one.
    """

    machine: Machine
    outdated: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Drain:
    """The proxy is about to end: refuse who waits, start nothing."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event = (
    Arrive | Finish | Cancel | Adopt | Ready | StartFailed | Stopped | StopFailed | Slept | SleepFailed | WakeFailed
    | Died | Unload | Measured | Pardon | Acquire | Renew | Release | ForceRelease | Handover | HolderGone | Reclaimed
    | ReclaimFailed | Unsaved | Withdraw | Reload | Drain | Tick
)  # fmt: skip
