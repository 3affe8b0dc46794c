"""Leases: the right of somebody outside to hold MiB on GPUs.

Owns the values. A lease is bound to the UUIDs of its GPUs; its token per GPU only ever grows, also over restarts, so
what shows an older one is refused everywhere. Pure data; the scheduler decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

LeaseState = Literal["active", "reclaiming", "quarantined", "free"]


@dataclass(frozen=True, slots=True)
class Holder:
    """A process on this machine: a number alone would be reused. `start` is its start time in clock ticks since boot."""

    pid: int
    start: int


@dataclass(frozen=True, slots=True)
class LeaseAsk:
    """What a client asks for. `gpus`: slots, or empty for the best `count` of them; `mib` on each of these.

    `request` makes it idempotent. `exclusive`: nothing else may hold memory on these GPUs. `holder` is watched where
    it is known, and its tree is ended before the memory counts as free.
    """

    request: str
    owner: str
    mib: int
    count: int = 1
    gpus: tuple[int, ...] = ()
    exclusive: bool = False
    priority: int = 0
    ttl_s: float = 60.0
    reason: str = ""
    holder: Holder | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it is now. `tokens` maps GPU slot -> fencing token, `uuids` GPU slot -> UUID."""

    id: str
    ask: LeaseAsk
    state: LeaseState
    tokens: Mapping[int, int]
    uuids: Mapping[int, str]
    expires: float
    restore: tuple[str, ...] = ()
    pids: tuple[int, ...] = field(default=())

    @property
    def token(self) -> int:
        """The one number a client shows: the highest of its tokens."""
        return max(self.tokens.values(), default=0)
