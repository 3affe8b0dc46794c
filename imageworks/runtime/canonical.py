"""One value for all states with the same future, for exhaustive search.

Owns the forgetting of what only names or counts the past: times become distances from now, ages and tokens become
ranks, ids of leases become the request they came from, counters become what is left of them. What only serves
estimates (how long leases were held, how many ended) is left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from imageworks.runtime.book import Gpu
from imageworks.runtime.eviction import cost
from imageworks.runtime.leases import Lease
from imageworks.runtime.residency import Slot
from imageworks.runtime.state import State
from imageworks.runtime.waiting import Asking, Waiting


def key(state: State, now: float) -> Hashable:
    """Equal for states that answer every future alike."""
    ages = {seq: rank for rank, seq in enumerate(sorted(state.queued))}
    costs = _ranks((cost(state, slot), slot.last_used) for slot in state.slots.values())
    return (
        state.adopted,
        state.draining,
        tuple(_slot(state, slot, costs[cost(state, slot), slot.last_used], ages, now) for slot in state.slots.values()),
        tuple(_gpu(state, book, now) for book in state.gpus.values()),
        tuple(_entry(state, entry, ages, now) for _, entry in sorted(state.queued.items())),
        tuple(sorted(state.granted.items())),
        tuple(sorted(_lease(state, lease, now) for lease in state.leases.values())),
        tuple((_name(state, name), tuple(sorted(each.missing))) for name, each in sorted(state.proofs.items())),
        tuple(sorted((kind, _name(state, name), time - now) for (kind, name), time in state.timers.at.items())),
        tuple(map(tuple, (state.heirs, state.wishes, state.leaving, state.absent, state.marked))),
    )


def _slot(state: State, slot: Slot, rank: int, ages: dict[int, int], now: float) -> Hashable:
    lines = state.lines.get(slot.spec.id, {})
    in_way = tuple(ages[seq] for seq in slot.in_way if seq in ages)
    return (
        slot.residency, slot.inflight, slot.failures, slot.failure is None, max(0.0, slot.retry_at - now), slot.fatal,
        slot.stop_failures, slot.sleep_failures, slot.dismissed, slot.removed, slot.outdated, slot.retried, rank,
        tuple(sorted(slot.held.items())), slot.held_host, slot.held_count, slot.lease and _name(state, slot.lease),
        max(0.0, slot.keep_until - now), in_way, slot.load_s, slot.began - now if slot.residency in LOADING else 0.0,
        tuple((lease and _name(state, lease), each.size) for lease, each in lines.items() if each.size),
    )  # fmt: skip


LOADING = ("starting", "waking")


def _gpu(state: State, book: Gpu, now: float) -> Hashable:
    reading = book.reading
    seen = (
        None
        if reading is None
        else (reading.total_mib, reading.used_mib, reading.foreign_mib, book.due_mib, book.closed(now))
    )
    holders = tuple(sorted((_name(state, name), mib) for name, mib in book.claims.items()))
    return (
        book.budget_mib, holders, tuple(sorted(_name(state, name) for name in book.moving)),
        book.exclusive and _name(state, book.exclusive), book.measured, seen, book.foreign_mib, book.lost,
    )  # fmt: skip


def _entry(state: State, entry: Waiting | Asking, ages: dict[int, int], now: float) -> Hashable:
    left = tuple((place, max(0, limit - state.crowds[place].departed)) for place, limit in sorted(entry.limits.items()))
    if isinstance(entry, Asking):
        return entry.calls, entry.ask, entry.deadline - now, ages[entry.seq], entry.chosen, entry.evicted, left
    line = state.lines[entry.models[0]][entry.lease]
    lease = entry.lease and _name(state, entry.lease)
    own = max(0, entry.limit - line.departed)
    return (
        entry.request,
        entry.models,
        entry.deadline - now,
        ages[entry.seq],
        entry.priority,
        lease,
        own,
        left,
        entry.up,
    )


def _lease(state: State, lease: Lease, now: float) -> tuple[Hashable, ...]:
    held = state.holds[lease.id]
    inner = (tuple(sorted(held.inner.items())), tuple(sorted(held.models)), held.cause, str(held.heir))
    gpus = tuple(sorted(lease.tokens))
    return lease.ask.request, lease.ask.owner, lease.state, gpus, lease.expires - now, lease.restore, lease.pids, inner


def _name(state: State, name: str) -> str:
    """A lease by what stays of it: its request."""
    lease = state.leases.get(name)
    return name if lease is None else f"lease {lease.ask.request}"


def _ranks(values: Iterable[tuple[float, float]]) -> dict[tuple[float, float], int]:
    return {value: rank for rank, value in enumerate(sorted(set(values)))}
