"""A schedule drawn from a seed: a small machine, how its parts behave, and what happens to it.

Owns the values and how they are drawn. Each schedule has some kinds of faults and lacks others (swarm testing:
the absence of one fault uncovers what its presence would hide). All chance is drawn here, beforehand: dropping an
act changes nothing else, so a failing schedule can be made smaller. Sizes are MiB, times seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from imageworks.runtime.residency import Machine, Spec

RESERVE_MIB = 1_000
TOLERANCE_MIB = 256
HABITS = 6
"""So many behaviours are drawn for each operation of a model; they come round."""


class Habit(NamedTuple):
    """How one operation goes: `outcome`, when its answer comes, and a second time whose meaning depends on it."""

    outcome: str
    took_s: float
    then_s: float


class Act(NamedTuple):
    """Something from outside at time `at`. `pick`, `span`, `how`, `size` mean what `kind` makes of them."""

    at: float
    kind: str
    pick: int
    span: float
    how: str
    size: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """The machine and its parts' behaviour. `habits` maps (model or `lease`, operation) to what happens in turn.

    `measured`: NVML answers, each `sample_s`; without it only the books count. `blind`: pids tell nothing.
    """

    seed: int
    machine: Machine
    habits: Mapping[tuple[str, str], tuple[Habit, ...]]
    measured: bool
    blind: bool
    sample_s: float
    start_timeout_s: float
    stop_timeout_s: float
    faults: frozenset[str]
    acts: tuple[Act, ...]


FAULTS: Mapping[str, float] = {
    "start": 0.5, "stop": 0.5, "sleep": 0.5, "reclaim": 0.5, "late": 0.4, "twice": 0.5, "orphan": 0.4, "slow_bytes": 0.5,
    "overuse": 0.2, "crash": 0.5, "kill": 0.5, "nvml_gone": 0.3, "nvml_lie": 0.1, "gpu_lost": 0.1, "foreign": 0.4,
    "pause": 0.2, "suspend": 0.2, "wall_clock": 0.3, "reload": 0.25, "unload": 0.3, "force": 0.3, "pardon": 0.3,
    "disk_full": 0.25, "corrupt": 0.1, "second_manager": 0.1, "drain": 0.05, "stale": 0.5, "cancel": 0.6, "reshuffle": 0.2,
}  # fmt: skip
"""Kinds of faults and in what share of the schedules each can happen."""

WEIGHTS: Mapping[str, float] = {
    "crash": 5, "kill": 1.5, "nvml_gone": 2, "nvml_lie": 1, "gpu_lost": 0.3, "foreign": 4, "pause": 1.5, "suspend": 1.5,
    "wall_clock": 1.5, "reload": 1, "unload": 2, "force": 2, "pardon": 2, "disk_full": 1.5, "corrupt": 0.7,
    "second_manager": 1, "drain": 0.5, "reshuffle": 1,
}  # fmt: skip
"""How often an act of that kind comes, against 50 requests and 16 leases."""

TEMPLATE = (("request", 50.0), ("lease", 16.0))


def draw(seed: int, steps: int) -> Scenario:
    """The schedule of a seed; long enough for `steps` steps of the scheduler."""
    rng = Random(seed)  # noqa: S311 - reproducible chance, no secret
    faults = frozenset(name for name, share in FAULTS.items() if rng.random() < share)
    if "wall_clock" in faults:  # a clock that jumps back and a lost state file together leave no memory of tokens
        faults -= {"disk_full", "corrupt"}
    machine = _machine(rng)
    measured = rng.random() < 0.7
    habits = {
        (name, operation): tuple(_habit(rng, operation, faults) for _ in range(HABITS))
        for name in machine.specs
        for operation in ("start", "stop", *(("sleep", "wake") if machine.specs[name].sleep_level else ()))
    }
    habits["lease", "reclaim"] = tuple(_habit(rng, "reclaim", faults) for _ in range(HABITS))
    return Scenario(
        seed=seed,
        machine=machine,
        habits=habits,
        measured=measured,
        blind=rng.random() < 0.2,
        sample_s=rng.choice((1.0, 2.0, 5.0)),
        start_timeout_s=20.0,
        stop_timeout_s=8.0,
        faults=faults,
        acts=_acts(rng, faults, steps),
    )


def _machine(rng: Random) -> Machine:
    total = {slot: rng.choice((8_000, 12_000, 24_000)) for slot in range(rng.randint(1, 3))}
    budget = {slot: mib - RESERVE_MIB for slot, mib in total.items()}
    names = [f"m{number}" for number in range(rng.randint(2, 6))]
    tags = rng.sample(names, 2) if rng.random() < 0.15 else []
    in_turn = frozenset(rng.sample(names, 2)) if rng.random() < 0.15 else frozenset()
    specs = {name: _spec(rng, name, budget, tags, in_turn) for name in names}
    return Machine(
        specs=specs,
        gpu_budget_mib=budget,
        host_budget_mib=10_000,
        count=rng.choice((1, 2, 3, 6)),
        queue=rng.choice((3, 8, 32)),
        uuids={slot: f"GPU-{slot}" for slot in budget},
        observe=rng.random() < 0.06,
        min_residency_s=rng.choice((0.0, 2.0, 20.0)),
        max_overtakes=rng.choice((1, 4, 16)),
        lease_queue_wait_s=60.0,
        lease_ttl_s=10.0,
        reclaim_s=rng.choice((3.0, 10.0)),
        tolerance_mib=TOLERANCE_MIB,
    )


def _spec(rng: Random, name: str, budget: Mapping[int, int], tags: list[str], in_turn: frozenset[str]) -> Spec:
    chance = rng.random()
    kept = name == "m0" and rng.random() < 0.3
    if chance < 0.1:
        gpu_mib: dict[int, int] = {}
    elif chance < 0.25:
        share = rng.uniform(0.1, 0.9)
        gpu_mib = {slot: int(mib * share) for slot, mib in list(budget.items())[:2]}
    else:
        slot = rng.choice(tuple(budget))
        gpu_mib = {slot: int(budget[slot] * (rng.uniform(0.1, 0.35) if kept else rng.uniform(0.15, 1.02)))}
    sleeps = rng.choice((0, 0, 1, 2)) if gpu_mib else 0
    return Spec(
        id=name,
        gpu_mib=gpu_mib,
        host_mib=0 if gpu_mib else rng.randint(1_000, 9_000),
        grace_s=rng.choice((0.0, 5.0, 20.0, 1e6)),
        concurrency=rng.randint(1, 4),
        kept=kept,
        resident=kept and rng.random() < 0.7,
        in_turn_with=in_turn - {name} if name in in_turn else frozenset(),
        counted=bool(gpu_mib),
        managed=chance >= 0.05,
        sleep_level=sleeps,
        asleep_mib={slot: mib // 10 for slot, mib in gpu_mib.items()} if sleeps else {},
        asleep_host_mib=0,
        never_with=frozenset(tags) - {name} if name in tags else frozenset(),
        load_s=rng.choice((None, 5.0)),
    )


_TROUBLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "start": (("start", "fail"), ("start", "again"), ("start", "exit"), ("late", "hang"), ("late", "late"),
              ("twice", "twice"), ("overuse", "overuse"), ("crash", "die")),
    "stop": (("stop", "stuck"), ("late", "hang"), ("twice", "twice"), ("orphan", "orphan"), ("slow_bytes", "slow_bytes")),
    "sleep": (("sleep", "fail"), ("late", "hang"), ("slow_bytes", "fail"), ("twice", "twice")),
    "wake": (("sleep", "fail"), ("late", "hang"), ("twice", "twice")),
    "reclaim": (("reclaim", "stuck"), ("late", "hang"), ("twice", "twice"), ("orphan", "orphan"),
                ("slow_bytes", "slow_bytes")),
}  # fmt: skip
_TOOK = {"start": 6.0, "stop": 2.0, "sleep": 1.5, "wake": 1.5, "reclaim": 2.0}


def _habit(rng: Random, operation: str, faults: frozenset[str]) -> Habit:
    possible = [outcome for fault, outcome in _TROUBLES[operation] if fault in faults]
    outcome = rng.choice(possible) if possible and rng.random() < 0.35 else "ok"
    return Habit(outcome, rng.uniform(0.05, _TOOK[operation]), rng.choice((0.5, 4.0, 15.0)) * rng.uniform(0.5, 1.5))


def _acts(rng: Random, faults: frozenset[str], steps: int) -> tuple[Act, ...]:
    kinds = [*TEMPLATE, *((kind, weight) for kind, weight in WEIGHTS.items() if kind in faults)]
    names, weights = [kind for kind, _ in kinds], [weight for _, weight in kinds]
    pace = 1 / rng.choice((0.2, 0.7, 2.0))
    acts, at, chance = [], 0.0, rng.random
    for kind in rng.choices(names, weights, k=steps // 2 + 10):
        at += rng.expovariate(pace)
        acts.append(Act(at, kind, int(chance() * 720), _span(chance()), _how(kind, rng, faults), chance()))
    return tuple(acts)


def _span(chance: float) -> float:
    """Seconds: many short spans, few long ones (median 4.5, at most 83)."""
    return 5.0 * (1.0 - chance) / (chance + 0.06)


_REQUEST = ("ok", "ok", "ok", "ok", "bad", "impatient", "urgent", "leased", "second")
_LEASE = ("release", "release", "die", "silent", "owner", "model", "impatient", "exclusive", "exclusive", "pair")


def _how(kind: str, rng: Random, faults: frozenset[str]) -> str:
    if kind == "request":
        extra: tuple[str, ...] = (
            *(("cancel", "hang_up") if "cancel" in faults else ()),
            *(("stale",) if "stale" in faults else ()),
        )
        return rng.choice(_REQUEST + extra)
    if kind == "lease":
        extra = (
            *(("twice", "forged", "late", "zombie") if "stale" in faults else ()),
            *(("withdraw",) if "cancel" in faults else ()),
        )
        return rng.choice(_LEASE + extra)
    return ""
