"""What the scheduler shows of itself: one consistent look at the GPUs, and where somebody stands in the queue.

Owns the values for the status views. Reads the state and changes nothing that matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from imageworks.runtime.asking import ask_of, ask_position, estimate_s
from imageworks.runtime.book import Gpu
from imageworks.runtime.eviction import load_s
from imageworks.runtime.state import State
from imageworks.runtime.waiting import Asking


@dataclass(frozen=True, slots=True)
class HolderView:
    """Who holds MiB of a GPU. `within` is the lease that a model lives in: its MiB are part of the lease's then."""

    id: str
    kind: Literal["model", "lease"]
    mib: int
    state: str
    token: int
    within: str | None = None


@dataclass(frozen=True, slots=True)
class GpuView:
    """One GPU: what it may be used for, what is measured (None: never), and what a new grant may take now.

    `held_mib` is the sum over holders that live in no lease. `closed`: it was measured and is not now, so nothing new
    is granted. `quarantined` maps holder -> pids that were seen to hold the memory.
    """

    slot: int
    uuid: str
    budget_mib: int
    total_mib: int | None
    used_mib: int | None
    foreign_mib: int
    held_mib: int
    free_mib: int
    lost: bool
    closed: bool
    holders: tuple[HolderView, ...]
    quarantined: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class CallView:
    """A call for a lease that waits; `gpus` is empty where any will do."""

    call: str
    owner: str
    reason: str
    mib: int
    count: int
    gpus: tuple[int, ...]
    exclusive: bool
    priority: int
    position: int
    estimate_s: float | None


@dataclass(frozen=True, slots=True)
class Gpus:
    """All GPUs at one moment; `waiting` are the calls for leases in the order in which they would be served."""

    gpus: tuple[GpuView, ...]
    waiting: tuple[CallView, ...]


def view(state: State) -> Gpus:
    """A consistent look."""
    asks = sorted((entry for entry in state.queued.values() if isinstance(entry, Asking)), key=lambda entry: entry.key)
    calls = tuple(_call(state, call, entry, place) for place, entry in enumerate(asks, 1) for call in entry.calls)
    return Gpus(tuple(_gpu(state, book) for _, book in sorted(state.gpus.items())), calls)


def _call(state: State, call: str, entry: Asking, place: int) -> CallView:
    ask, each_s = entry.ask, state.hold_s
    return CallView(
        call, ask.owner, ask.reason, ask.mib, ask.count, ask.gpus, ask.exclusive, ask.priority, place,
        None if each_s is None else each_s * place,
    )  # fmt: skip


def _gpu(state: State, book: Gpu) -> GpuView:
    models = [
        HolderView(name, "model", slot.held[book.slot], slot.residency, slot.tokens.get(book.slot, 0), slot.lease)
        for name in state.held
        if book.slot in (slot := state.slots[name]).held
    ]
    leases = [
        HolderView(
            lease.id,
            "lease",
            book.claims.get(lease.id) or book.unbinding.get(lease.id, 0),
            lease.state,
            lease.tokens[book.slot],
        )
        for lease in (state.leases[name] for name in sorted(book.leases))
    ]
    stuck = {name: slot.pids for name in state.held if (slot := state.slots[name]).residency == "quarantined"}
    stuck |= {name: lease.pids for name in book.leases if (lease := state.leases[name]).state == "quarantined"}
    here = {holder.id for holder in (*models, *leases)}
    reading = book.reading
    return GpuView(
        book.slot,
        book.uuid,
        book.budget_mib,
        None if reading is None else reading.total_mib,
        None if reading is None else reading.used_mib,
        book.foreign_mib,
        book.claimed_mib,
        book.room(state.now),
        book.lost,
        book.closed(state.now),
        (*sorted(models, key=lambda holder: holder.id), *leases),
        {name: pids for name, pids in sorted(stuck.items()) if name in here},
    )


def position(state: State, name: str) -> tuple[int, float | None]:
    """Where a waiting request or call stands (1 is next), and in how many seconds it may be served, None where unknown.

    Raises KeyError for one that does not wait.
    """
    if name in state.by_call:
        asking = ask_of(state, state.by_call[name])
        return ask_position(state, asking), estimate_s(state, asking)
    waiting = state.waiting[name]
    places = set(state.slots[waiting.models[0]].crowds)
    ahead = [
        other
        for other in state.waiting.values()
        if other.key < waiting.key and places & set(state.slots[other.models[0]].crowds)
    ]
    loads = {other.models[0] for other in (*ahead, waiting)}
    return 1 + len(ahead), sum(_seconds_up(state, model) for model in loads)


def _seconds_up(state: State, model: str) -> float:
    slot = state.slots[model]
    if slot.residency == "ready":
        return 0.0
    spent = state.now - slot.began if slot.residency in ("starting", "waking") else 0.0
    return max(0.0, load_s(slot) - spent)
