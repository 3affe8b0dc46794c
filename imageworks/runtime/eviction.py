"""Who would have to go so that somebody fits.

Owns the comparison of a need with what is free, and the choice of models that make room: idle before busy, cheap to
bring back before dear (reload seconds times demand), kept ones never for another model. Changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from imageworks.runtime.residency import COUNT, DOWN, HOST, Need, Slot
from imageworks.runtime.state import HALF_LIFE_S, NOTHING, State, can_sleep

Reserved = Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Plan:
    """Models that go, in order, with True for those that may sleep instead. `busy` ones are to be waited for."""

    leave: tuple[tuple[str, bool], ...] = ()
    busy: bool = False
    until: float | None = None
    cost: float = 0.0


FITS = Plan()


@dataclass(slots=True)
class _Search:
    state: State
    need: Need
    reserved: Reserved
    chosen: list[Slot] = field(default_factory=list)


def need_of(state: State, slot: Slot, lease: str | None) -> Need:
    """What a model needs to come up, from where it is now."""
    plain = lease is None and slot.residency in DOWN
    if plain and slot.need is not None:
        return slot.need
    spec = slot.spec
    pools = {gpu: mib - slot.held.get(gpu, 0) for gpu, mib in spec.gpu_mib.items()}
    if lease is not None:
        hold, mib = state.holds[lease], state.leases[lease].ask.mib
        if not state.machine.observe:
            pools = {
                gpu: max(0, hold.inner.get(gpu, 0) + more - max(mib, hold.inner.get(gpu, 0)))
                for gpu, more in pools.items()
            }
    pools[HOST] = spec.host_mib - slot.held_host
    pools[COUNT] = int(spec.counted) - slot.held_count
    need = Need(
        spec.id, {pool: mib for pool, mib in pools.items() if mib > 0}, state.rivals.get(spec.id, ()), lease=lease
    )
    if plain:
        slot.need = need
    return need


def available(state: State, pool: int) -> int:
    """What is free in a pool now; below 0 where something must come back first."""
    if pool == HOST:
        return state.machine.host_budget_mib - state.host_mib
    if pool == COUNT:
        return state.machine.count - state.counted
    gpu = state.gpus.get(pool)
    return 0 if gpu is None else gpu.slack(state.now)


def plan(state: State, need: Need, reserved: Reserved) -> Plan | None:
    """How it would fit; None when no model that goes would make it fit."""
    must = _must_go(state, need)
    if must is None:
        return None
    if not must and fits(state, need, reserved):
        return FITS
    return _choose(_Search(state, need, reserved), must)


def fits(state: State, need: Need, reserved: Reserved) -> bool:
    """Is there room for it as things are?"""
    for pool, amount in need.pools.items():  # noqa: SIM110 - asked for every candidate, a generator takes twice as long
        if amount + reserved.get(pool, 0) > available(state, pool):
            return False
    return True


def shortage(state: State, need: Need, reserved: Reserved, more: Reserved = NOTHING) -> dict[int, int]:
    """What is missing, by pool."""
    return {
        pool: missing
        for pool, amount in need.pools.items()
        if (missing := amount + reserved.get(pool, 0) + more.get(pool, 0) - available(state, pool)) > 0
    }


def _must_go(state: State, need: Need) -> list[Slot] | None:
    """Models that may not be there at all beside it; None when somebody is there who does not go."""
    if not need.never_with and not need.exclusive:
        return []
    must = [slot for name in sorted(need.never_with) if _there(slot := state.slots[name])]
    if any(slot.spec.kept for slot in must):
        return None
    if need.exclusive:
        for pool in need.pools:
            gpu = state.gpus[pool]
            if gpu.leases:
                return None
            must += [state.slots[name] for name in gpu.claims if state.slots[name] not in must]
    return None if any(slot.residency == "quarantined" or not slot.spec.managed for slot in must) else must


def _there(slot: Slot) -> bool:
    return slot.residency not in ("stopped", "failed")


def _choose(search: _Search, must: list[Slot]) -> Plan | None:
    state, need = search.state, search.need
    short = shortage(state, need, search.reserved)
    gone = [state.slots[name] for name in state.moving if state.slots[name].residency in ("stopping", "reclaiming")]
    _take(short, gone)
    must = [slot for slot in must if slot not in gone]
    _take(short, must)
    if short:
        without = {slot.spec.id for slot in (*must, *gone)}
        order = sorted(_candidates(search, short, without), key=lambda slot: _rank(state, slot))
        for slot in order:
            if not short:
                break
            search.chosen.append(slot)
            _take(short, (slot,))
        if short:
            return None
        _spare_needless(search, (*must, *gone))
    leave = [*must, *search.chosen]
    busy = bool(gone) or any(not idle(state, slot) for slot in leave)
    until = [slot.keep_until for slot in leave if need.patient and slot.keep_until > state.now]
    sleepers = _sleepers(search, must, gone)
    return Plan(
        tuple((slot.spec.id, slot.spec.id in sleepers) for slot in leave),
        busy or bool(until),
        max(until, default=None),
        sum(cost(state, slot) for slot in leave),
    )


def _take(short: dict[int, int], leaving: Iterable[Slot]) -> None:
    """What these give back is missing no more."""
    for slot in leaving:
        for pool in tuple(short):
            short[pool] -= _freed(slot, pool)
            if short[pool] <= 0:
                del short[pool]


def _freed(slot: Slot, pool: int) -> int:
    if pool == HOST:
        return slot.held_host
    return slot.held_count if pool == COUNT else slot.held.get(pool, 0)


def _candidates(search: _Search, short: Reserved, without: set[str]) -> list[Slot]:
    """Models whose going would give something that is missing."""
    state, need = search.state, search.need
    names: dict[str, None] = {}
    for pool in short:
        if pool < 0:
            names |= state.held
        elif pool in state.gpus:
            names |= dict.fromkeys(name for name in state.gpus[pool].claims if name in state.slots)
    if need.lease is not None:
        names |= dict.fromkeys(sorted(state.holds[need.lease].models))
    return [
        slot
        for name in names
        if name != need.name
        and name not in without
        and (slot := state.slots[name]).lease in (None, need.lease)
        and slot.residency in ("ready", "asleep", "starting", "waking", "sleeping")
        and slot.spec.managed
        and not slot.spec.kept
    ]


def _rank(state: State, slot: Slot) -> tuple[bool, float, float, str]:
    return not idle(state, slot), cost(state, slot), slot.last_used, slot.spec.id


def cost(state: State, slot: Slot) -> float:
    """Seconds of loading that its going is likely to cause."""
    return load_s(slot) * slot.rate * math.exp2(-(state.now - slot.rate_at) / HALF_LIFE_S)


def load_s(slot: Slot) -> float:
    """How long it takes to come up: measured, else declared, else guessed from its size, a GiB in a second."""
    if slot.load_s is not None:
        return slot.load_s
    spec = slot.spec
    return spec.load_s if spec.load_s is not None else (sum(spec.gpu_mib.values()) + spec.host_mib) / 1024


def idle(state: State, slot: Slot) -> bool:
    """May it go at once: up or asleep, nothing in flight, and nothing else moves on its GPUs."""
    quiet = not any(state.gpus[gpu].moving for gpu in slot.spec.gpu_mib)
    return quiet and (
        slot.residency == "asleep" or (slot.residency == "ready" and not slot.inflight and not slot.fresh)
    )


def _spare_needless(search: _Search, leaving: tuple[Slot, ...]) -> None:
    for slot in tuple(search.chosen):
        others = [other for other in search.chosen if other is not slot]
        if not _still_short(search, [*leaving, *others]):
            search.chosen = others


def _still_short(search: _Search, leaving: Iterable[Slot]) -> bool:
    short = shortage(search.state, search.need, search.reserved)
    _take(short, leaving)
    return bool(short)


def _sleepers(search: _Search, must: list[Slot], gone: list[Slot]) -> set[str]:
    """Who may sleep instead of being stopped, because what it keeps asleep is not missing either."""
    state = search.state
    found: set[str] = set()
    for slot in search.chosen:
        if slot.residency == "ready" and can_sleep(state, slot):
            kept = _kept_asleep(search, found | {slot.spec.id})
            short = shortage(state, search.need, search.reserved, kept)
            _take(short, (*must, *gone, *search.chosen))
            if not short:
                found.add(slot.spec.id)
    return found


def _kept_asleep(search: _Search, names: Iterable[str]) -> dict[int, int]:
    kept: dict[int, int] = {}
    for name in names:
        spec = search.state.slots[name].spec
        for gpu, mib in spec.asleep_mib.items():
            kept[gpu] = kept.get(gpu, 0) + mib
        kept[HOST] = kept.get(HOST, 0) + spec.asleep_host_mib
    return kept
