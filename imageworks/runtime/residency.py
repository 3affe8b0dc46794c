"""What a model is to the machine that holds it: its residency, its needs, and who makes room for whom.

Owns the residency table (as data), the static facts of models and machine taken from the routing table, and
the capacity arithmetic: GPU MiB per slot, host MiB, number of models. Pure: no clock, no I/O, no queue; the
scheduler asks, this file answers. Every model that is not stopped or failed counts in full, also while it
starts and stops.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from imageworks.contract import Route, RouteTable

Residency = Literal["stopped", "starting", "ready", "stopping", "failed"]
Move = Literal["start", "ready", "stop", "gone", "gone_after_failure"]

LAW: Mapping[tuple[Residency, Move], Residency] = {
    ("stopped", "start"): "starting",
    ("failed", "start"): "starting",
    ("starting", "ready"): "ready",
    ("starting", "stop"): "stopping",
    ("ready", "stop"): "stopping",
    ("stopping", "gone"): "stopped",
    ("stopping", "gone_after_failure"): "failed",
}
"""The whole life of a model. A move that is not in the table is a bug of the scheduler."""

HOLDING: frozenset[Residency] = frozenset({"starting", "ready", "stopping"})
MOVING: frozenset[Residency] = frozenset({"starting", "stopping"})


@dataclass(frozen=True, slots=True)
class Spec:
    """The facts of one model that matter for sharing the machine.

    `counted`: it counts against the number of models; `managed`: we start and stop it; `kept`: never evicted
    and never unloaded for idleness; `resident`: started at once and restarted, though not while one of `in_turn_with`
    is starting.
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


@dataclass(frozen=True, slots=True)
class Machine:
    """Budgets of the machine and of the queue; `count` models may be held at once."""

    specs: Mapping[str, Spec]
    gpu_budget_mib: Mapping[int, int]
    host_budget_mib: int
    count: int
    queue: int


@dataclass(frozen=True, slots=True)
class Slot:
    """One model now. `failure` is the reason of the last failed life; no start before `retry_at`.

    `dismissed`: a person asked to unload it, so it goes when idle and, if resident, stays away until asked for.
    `stop_again_at`: when a failed stop is tried again.
    """

    residency: Residency = "stopped"
    inflight: int = 0
    last_used: float = 0.0
    failures: int = 0
    failure: str | None = None
    retry_at: float = 0.0
    stop_again_at: float | None = None
    dismissed: bool = False


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
    )


def machine(table: RouteTable) -> Machine:
    """The machine of a routing table. `load_unload` means one model at a time, whatever the count says."""
    return Machine(
        specs={name: spec(route, table) for name, route in table.routes.items()},
        gpu_budget_mib={gpu.slot: gpu.budget_mib for gpu in table.gpus},
        host_budget_mib=table.policy.host_budget_mib,
        count=1 if table.policy.strategy == "load_unload" else table.policy.max_concurrent_models,
        queue=table.proxy.queue,
    )


def fits(machine: Machine, held: Iterable[str], wanted: Spec) -> bool:
    """Does `wanted` fit beside `held`? Only what it uses itself is looked at."""
    others = [machine.specs[name] for name in set(held) - {wanted.id}]
    slots_fit = all(
        mib + sum(other.gpu_mib.get(slot, 0) for other in others) <= machine.gpu_budget_mib.get(slot, 0)
        for slot, mib in wanted.gpu_mib.items()
    )
    host_fits = (
        not wanted.host_mib or wanted.host_mib + sum(other.host_mib for other in others) <= machine.host_budget_mib
    )
    count_fits = not wanted.counted or 1 + sum(other.counted for other in others) <= machine.count
    return slots_fit and host_fits and count_fits


def holding(slots: Mapping[str, Slot]) -> list[str]:
    """Models that hold memory now."""
    return [name for name, slot in slots.items() if slot.residency in HOLDING]


def in_transition(machine: Machine, slots: Mapping[str, Slot], model: str) -> bool:
    """Does another model start or stop on one of this model's GPUs? Loads and unloads on one GPU are serialised."""
    gpus = machine.specs[model].gpu_mib.keys()
    return any(
        slot.residency in MOVING and name != model and not gpus.isdisjoint(machine.specs[name].gpu_mib)
        for name, slot in slots.items()
    )


def victims(
    machine: Machine, slots: Mapping[str, Slot], wanted: str, reserved: Iterable[str] = ()
) -> tuple[str, ...] | None:
    """Models that must go so that `wanted` fits: idle ones first, then least recently used; None when that is impossible.

    Models that are stopping already count as gone; `reserved` models count as held although they have not started.
    """
    staying = [name for name, slot in slots.items() if slot.residency in ("starting", "ready") and name != wanted]
    fixed = {name for name in staying if machine.specs[name].kept} | set(reserved)
    order = sorted(
        (name for name in staying if name not in fixed),
        key=lambda name: (_busy(slots[name]), slots[name].last_used, name),
    )
    want = machine.specs[wanted]
    for count in range(len(order) + 1):
        if fits(machine, [*fixed, *order[count:]], want):
            return _without_needless(machine, fixed, order, count, want)
    return None


def _without_needless(machine: Machine, fixed: set[str], order: list[str], count: int, want: Spec) -> tuple[str, ...]:
    chosen, staying = list(order[:count]), [*fixed, *order[count:]]
    for name in order[:count]:
        if fits(machine, [*staying, name], want):
            chosen.remove(name)
            staying.append(name)
    return tuple(chosen)


def _busy(slot: Slot) -> bool:
    return slot.residency == "starting" or slot.inflight > 0
