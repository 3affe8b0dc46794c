"""What a model is to the machine that holds it: its residency, its needs, and what is known of it now.

Owns the residency table (as data; the diagram in docs/scheduler.md is drawn from it) and the static facts of models
and machine taken from the routing table. Pure: no clock, no I/O, no queue. Every model that is not stopped or failed
holds memory, also while it starts and stops and until its bytes are seen free.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from imageworks.contract import Route, RouteTable

Residency = Literal[
    "stopped", "starting", "ready", "sleeping", "asleep", "waking", "stopping", "reclaiming", "quarantined", "failed"
]
Move = Literal[
    "found starting", "found ready", "found asleep", "start", "ready", "sleep", "asleep", "wake", "stop", "gone",
    "not back", "free", "free after failure",
]  # fmt: skip

LAW: Mapping[tuple[Residency, Move], Residency] = {
    ("stopped", "found starting"): "starting",
    ("stopped", "found ready"): "ready",
    ("stopped", "found asleep"): "asleep",
    ("stopped", "start"): "starting",
    ("failed", "start"): "starting",
    ("starting", "ready"): "ready",
    ("starting", "stop"): "stopping",
    ("ready", "sleep"): "sleeping",
    ("ready", "stop"): "stopping",
    ("sleeping", "asleep"): "asleep",
    ("sleeping", "stop"): "stopping",
    ("asleep", "wake"): "waking",
    ("asleep", "stop"): "stopping",
    ("waking", "ready"): "ready",
    ("waking", "stop"): "stopping",
    ("stopping", "gone"): "reclaiming",
    ("stopping", "not back"): "quarantined",
    ("reclaiming", "free"): "stopped",
    ("reclaiming", "free after failure"): "failed",
    ("reclaiming", "not back"): "quarantined",
    ("quarantined", "free"): "stopped",
    ("quarantined", "free after failure"): "failed",
}
"""The whole life of a model. A move that is not in the table is a bug of the scheduler."""

HOLDING: frozenset[Residency] = frozenset(
    {"starting", "ready", "sleeping", "asleep", "waking", "stopping", "reclaiming", "quarantined"}
)
MOVING: frozenset[Residency] = frozenset({"starting", "sleeping", "waking", "stopping", "reclaiming"})
"""Loads and unloads on one GPU are serialised: while one holder moves, no other begins to."""
RISING: frozenset[Residency] = frozenset({"starting", "waking"})
DOWN: frozenset[Residency] = frozenset({"stopped", "failed"})


@dataclass(frozen=True, slots=True)
class Spec:
    """The facts of one model that matter for sharing the machine.

    `counted`: it counts against the number of models; `managed`: we start and stop it; `kept`: never evicted for another
    model and never unloaded for idleness; `resident`: started at once and restarted, though not while one of
    `in_turn_with` is starting. `sleep_level` 0 means that it cannot sleep; asleep it holds `asleep_mib` and
    `asleep_host_mib`. Models of `never_with` are not loaded beside it. `load_s` is an estimate until it was measured.
    """

    id: str
    gpu_mib: Mapping[int, int]
    host_mib: int
    grace_s: float
    concurrency: int
    kept: bool = False
    resident: bool = False
    in_turn_with: frozenset[str] = frozenset()
    counted: bool = True
    managed: bool = True
    sleep_level: int = 0
    asleep_mib: Mapping[int, int] = field(default_factory=dict)
    asleep_host_mib: int = 0
    never_with: frozenset[str] = frozenset()
    load_s: float | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """Budgets and rules. `count` models may be held at once, `queue` requests may wait, and as many calls for leases.

    `uuids` names the GPUs. `observe`: leases are recorded and never block. `reclaim_s` bounds how long bytes may take to
    come back; `tolerance_mib` is how much of a measured number is noise. `measured`: the GPUs are read, so nothing is
    granted on one before its first reading.
    """

    specs: Mapping[str, Spec]
    gpu_budget_mib: Mapping[int, int]
    host_budget_mib: int
    count: int
    queue: int
    uuids: Mapping[int, str] = field(default_factory=dict)
    observe: bool = False
    min_residency_s: float = 20.0
    max_overtakes: int = 32
    lease_queue_wait_s: float = 600.0
    lease_ttl_s: float = 60.0
    reclaim_s: float = 30.0
    tolerance_mib: int = 256
    measured: bool = False


HOST, COUNT = -1, -2
"""Pools beside the GPUs: host memory, and places among the models that may be held at once."""


@dataclass(frozen=True, slots=True)
class Need:
    """What somebody needs on top of what it holds: MiB by GPU slot, `HOST` MiB, a place (`COUNT`).

    `never_with` must not be loaded; `exclusive`: nothing else may be on these GPUs; `lease`: it lives in that lease;
    `patient`: it respects the minimum residency of others.
    """

    name: str
    pools: Mapping[int, int]
    never_with: Collection[str] = ()
    exclusive: bool = False
    lease: str | None = None
    patient: bool = True


@dataclass(slots=True)
class Slot:
    """One model now. `failure` is the reason of the last failed life; no start before `retry_at`.

    `dismissed`: a person asked to unload it, so it goes when idle and, if resident, stays away until asked for.
    `removed`: the plan does not know it any more; `outdated`: it runs as the plan does not say any more, so it serves
    nobody new and goes when idle; `next_spec` is in force from its next start. `life` grows at every start and stop; `tokens` fence this life, per
    GPU. `held` is what it holds, MiB per GPU slot, `lease` the lease that it lives in. `keep_until` ends its minimum
    residency. `in_way`: ages of those who wait for its
    memory. `fresh`: just ready, its first requests are about to be granted.
    `base_mib` was in use on its GPUs when it began to load, `own_mib` is what it was seen to use, `bounds_mib` the use
    that proves it gone. `need` is what it needs to start, once that was asked.
    """

    spec: Spec
    residency: Residency = "stopped"
    inflight: int = 0
    last_used: float = 0.0
    failures: int = 0
    failure: str | None = None
    retry_at: float = 0.0
    fatal: bool = False
    stop_again_at: float | None = None
    stop_failures: int = 0
    sleep_failures: int = 0
    dismissed: bool = False
    removed: bool = False
    outdated: bool = False
    retried: bool = False
    life: int = 0
    tokens: Mapping[int, int] = field(default_factory=dict)
    held: Mapping[int, int] = field(default_factory=dict)
    held_host: int = 0
    held_count: int = 0
    lease: str | None = None
    began: float = 0.0
    load_s: float | None = None
    keep_until: float = 0.0
    rate: float = 0.0
    rate_at: float = 0.0
    crowds: tuple[int, ...] = ()
    in_way: tuple[int, ...] = ()
    fresh: bool = False
    base_mib: Mapping[int, int] = field(default_factory=dict)
    own_mib: Mapping[int, int] = field(default_factory=dict)
    bounds_mib: dict[int, int] = field(default_factory=dict)
    pids: tuple[int, ...] = ()
    next_spec: Spec | None = None
    need: Need | None = None


def managed(route: Route) -> bool:
    """True when we start and stop it: a program of ours, or a model of an Ollama daemon."""
    return route.program is not None or route.backend == "ollama"


def spec(route: Route, table: RouteTable) -> Spec:
    """The sharing facts of one route."""
    resident = route.id in table.policy.resident
    return Spec(
        id=route.id,
        gpu_mib={int(slot): mib for slot, mib in route.gpu_mib.items()},
        host_mib=route.host_mib,
        grace_s=route.grace_s,
        concurrency=max(1, route.concurrency),
        kept=route.pinned or resident,
        resident=resident,
        in_turn_with=frozenset(name for each in table.policy.in_turn if route.id in each for name in each) - {route.id},
        counted=bool(route.gpu_mib) if table.gpus else managed(route),
        managed=managed(route),
        sleep_level={"level1": 1, "level2": 2}.get(route.sleep, 0),
        asleep_mib={int(slot): mib for slot, mib in route.asleep_mib.items()},
        asleep_host_mib=route.asleep_host_mib,
        never_with=frozenset(route.never_with),
    )


def machine(table: RouteTable, uuids: Mapping[int, str] | None = None, *, measured: bool = False) -> Machine:
    """The machine of a routing table; `measured` where its GPUs are read. `load_unload` means one model at a time, whatever the count says."""
    leases = table.leases
    return Machine(
        specs={name: spec(route, table) for name, route in table.routes.items()},
        gpu_budget_mib={gpu.slot: gpu.budget_mib for gpu in table.gpus},
        host_budget_mib=table.policy.host_budget_mib,
        count=1 if table.policy.strategy == "load_unload" else table.policy.max_concurrent_models,
        queue=table.proxy.queue,
        uuids=uuids or {},
        observe=leases.mode == "observe",
        min_residency_s=leases.min_residency_s,
        max_overtakes=leases.max_overtakes,
        lease_queue_wait_s=leases.queue_wait_s,
        lease_ttl_s=leases.ttl_s,
        measured=measured,
    )
