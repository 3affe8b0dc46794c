"""Everything the scheduler knows, and the few words that change it.

Owns `State`, which `step` changes in place (`copy` gives an independent one), and the only functions that move a model
through its law, let it hold memory, queue a request and answer it. Decides nothing: the modules that use these words do.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappush

from imageworks.runtime.book import Gpu
from imageworks.runtime.events import Effect, EndCause, Grant, Moved, Refuse, RefuseCode
from imageworks.runtime.leases import Lease
from imageworks.runtime.residency import DOWN, HOLDING, HOST, LAW, MOVING, RISING, Machine, Move, Slot, Spec
from imageworks.runtime.timers import Timers
from imageworks.runtime.waiting import Asking, Crowd, Lane, Line, Waiting

NOTHING: Mapping[int, int] = {}
SLEEP_FAILURES = 2
"""After so many failures to sleep or wake well, a model is always stopped instead."""
LaneKey = tuple[tuple[int, ...], str | None]
HALF_LIFE_S = 300.0
"""After this time without a request, the demand for a model counts half."""


@dataclass(slots=True)
class Hold:
    """What belongs to a live lease: models that live in it with their MiB per GPU, and how it ends once it does.

    `heir` is the model that gets its memory next; `passed_on`: it went to another owner, so that somebody uses it; `calls` are those that were told of the grant.
    """

    inner: dict[int, int] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    began: float = 0.0
    cause: EndCause = "released"
    heir: str | None = None
    passed_on: bool = False


@dataclass(slots=True)
class Proof:
    """The memory of a holder whose processes are gone, and what a reading must show before it counts as free.

    `missing` are GPUs that have not shown it; `bounds` maps GPU -> highest use that proves it on its own, `foreign` what
    others held there before. A model that sleeps `keeps` some. What `newcomers` claim since may not be in use yet.
    """

    missing: set[int]
    foreign: Mapping[int, int]
    bounds: dict[int, int]
    keeps: Mapping[int, int]
    newcomers: set[str] = field(default_factory=set)


PARTS = (
    "absent", "adopted", "asks", "by_call", "by_request", "counted", "crowds", "dirty", "draining", "ended", "fresh", "gpus",
    "granted", "heirs", "held", "hold_s", "holds", "host_mib", "lanes", "leases", "leaving", "lines", "machine", "marked",
    "moving", "now", "out", "pinned", "proofs", "queued", "rank", "rivals", "seq", "slots", "timers", "waiting", "wishes",
)  # fmt: skip


class State:
    """To be read: `slots`, `waiting` (by age), `granted` (request -> model), `leases`, `gpus`, `adopted`, `draining`."""

    __slots__ = PARTS

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.slots: dict[str, Slot] = {
            name: Slot(spec, residency="stopped" if spec.managed else "ready") for name, spec in machine.specs.items()
        }
        self.gpus: dict[int, Gpu] = {
            slot: Gpu(slot, machine.uuids.get(slot, ""), mib, measured=machine.measured)
            for slot, mib in machine.gpu_budget_mib.items()
        }
        self.pinned: tuple[Spec, ...] = ()
        self.rank: dict[str, int] = {}
        self.rivals: dict[str, set[str]] = {}
        self.waiting: dict[str, Waiting] = {}
        self.granted: dict[str, str] = {}
        self.queued: dict[int, Waiting | Asking] = {}
        self.crowds: dict[int, Crowd] = {place: Crowd() for place in (HOST, *self.gpus)}
        self.lines: dict[str, dict[str | None, Line]] = {}
        self.lanes: dict[LaneKey, Lane] = {}
        self.asks = Lane()
        self.by_call: dict[str, int] = {}
        self.by_request: dict[str, int | str] = {}
        self.leases: dict[str, Lease] = {}
        self.holds: dict[str, Hold] = {}
        self.ended: dict[str, Lease] = {}
        self.proofs: dict[str, Proof] = {}
        self.timers = Timers()
        self.heirs: dict[str, None] = {}
        self.wishes: dict[str, None] = {}
        self.leaving: dict[str, None] = {}
        self.absent: dict[str, None] = {name: None for name, spec in machine.specs.items() if spec.resident}
        self.fresh: list[str] = []
        self.held: dict[str, None] = {}
        self.moving: dict[str, None] = {}
        self.marked: list[str] = []
        self.host_mib = self.counted = self.seq = 0
        self.hold_s: float | None = None
        self.adopted = self.draining = self.dirty = False
        self.now = 0.0
        self.out: list[Effect] = []
        know(self)

    def copy(self) -> State:
        """An independent state with the same future."""
        other = State.__new__(State)
        for name in PARTS:
            setattr(other, name, _copy(getattr(self, name)))
        other.waiting = {request: other.queued[waiting.seq] for request, waiting in self.waiting.items()}  # type: ignore[misc]  # the same entries
        return other


def _copy(value: object) -> object:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, set):
        return set(value)
    if isinstance(value, Slot | Waiting | Asking):
        return replace(value)
    if isinstance(value, Gpu | Crowd | Line | Lane | Timers):
        return value.copy()
    if isinstance(value, Hold):
        return replace(value, inner=dict(value.inner), models=set(value.models))
    if isinstance(value, Proof):
        return replace(value, missing=set(value.missing), bounds=dict(value.bounds), newcomers=set(value.newcomers))
    return list(value) if isinstance(value, list) else value


def know(state: State) -> None:
    """What follows from the plan: who is kept, who is never with whom, in which order residents come, where each model waits.

    It waits on its GPUs, and for host memory or a place among the models where these can lack.
    """
    specs = state.machine.specs
    state.pinned = tuple(spec for spec in specs.values() if spec.kept)
    state.rank = {name: index for index, name in enumerate(specs)}
    state.rivals = {name: set(spec.never_with) & specs.keys() for name, spec in specs.items()}
    for name, rivals in tuple(state.rivals.items()):
        for rival in rivals:
            state.rivals[rival].add(name)
    scarce = sum(spec.counted for spec in specs.values()) > state.machine.count
    for name in specs:
        slot = state.slots[name]
        shared = (HOST,) if scarce or not slot.spec.gpu_mib else ()
        slot.need = None
        slot.crowds = (*(gpu for gpu in slot.spec.gpu_mib if gpu in state.gpus), *shared)


def respec(state: State, slot: Slot, spec: Spec) -> None:
    """Another plan for a model: at once where nothing of it is held, else what it holds stays until it goes."""
    old = slot.spec
    slot.next_spec = slot.need = None
    if slot.held or slot.held_host or slot.held_count or slot.residency not in DOWN:
        slot.next_spec = spec
        spec = replace(
            spec, gpu_mib=old.gpu_mib, host_mib=old.host_mib, counted=old.counted, managed=old.managed,
            asleep_mib=old.asleep_mib, asleep_host_mib=old.asleep_host_mib,
        )  # fmt: skip
    for lease in state.lines.get(spec.id, {}):
        lane(state, old, lease).drop(spec.id)
    slot.spec = spec


def forget(state: State, slot: Slot) -> None:
    """The plan does not know it, and nothing of it is left."""
    name = slot.spec.id
    for lease in state.lines.pop(name, {}):
        lane(state, slot.spec, lease).drop(name)
    for names in (state.absent, state.wishes, state.heirs, state.leaving):
        names.pop(name, None)
    del state.slots[name]


# models


def move(state: State, slot: Slot, step: Move, cause: str) -> None:
    """One step of the law. KeyError: a bug of the scheduler."""
    name, before = slot.spec.id, slot.residency
    after = slot.residency = LAW[before, step]
    for gpu in slot.spec.gpu_mib:
        book = state.gpus[gpu]
        book.calm = False
        if after in MOVING:
            book.moving.add(name)
        else:
            book.moving.discard(name)
        rising = (after in RISING) - (before in RISING)
        if rising:
            book.rising_mib += rising * slot.spec.gpu_mib[gpu]
    if after in MOVING:
        state.moving[name] = None
    else:
        state.moving.pop(name, None)
    if after in HOLDING:
        state.held[name] = None
    else:
        state.held.pop(name, None)
    if before == "ready":
        state.timers.cancel("grace", name)
    if "ready" in (before, after):
        stand(state, slot)
    state.dirty = True
    show(state, slot)
    state.out.append(Moved(name, "model", before, after, cause, slot.tokens))


def stand(state: State, slot: Slot) -> None:
    """A model came up or went: its requests do not wait for memory any more, or do so again."""
    for lease, each in state.lines.get(slot.spec.id, {}).items():
        up = serves(slot, lease)
        members = each.members(state.queued)
        for waiting in members:
            waiting.up = up
        if members and not up:
            enlist(state, members, slot.crowds)


def claim(state: State, slot: Slot, gpu_mib: Mapping[int, int], host_mib: int, counted: int) -> None:
    """Let a model hold exactly this from now."""
    name, held = slot.spec.id, slot.held
    for gpu in {**held, **gpu_mib}:
        book, mib = state.gpus[gpu], gpu_mib.get(gpu, 0)
        if slot.lease is None:
            book.claim(name, mib)
        else:
            inner = state.holds[slot.lease].inner
            inner[gpu] = inner.get(gpu, 0) + mib - held.get(gpu, 0)
            claim_lease(state, slot.lease, gpu)
    state.host_mib += host_mib - slot.held_host
    state.counted += counted - slot.held_count
    slot.held, slot.held_host, slot.held_count = gpu_mib, host_mib, counted
    state.dirty = True


def claim_lease(state: State, lease: str, gpu: int) -> None:
    """A lease holds what it was granted, or more where the models that live in it hold more."""
    book, inner = state.gpus[gpu], state.holds[lease].inner.get(gpu, 0)
    if state.machine.observe:
        book.unbinding[lease] = state.leases[lease].ask.mib
        book.claim(lease, inner)
    else:
        book.claim(lease, max(state.leases[lease].ask.mib, inner))


def claim_all(state: State, slot: Slot) -> None:
    """Let a model hold what it needs when it is up."""
    spec = slot.spec
    claim(state, slot, spec.gpu_mib, spec.host_mib, int(spec.counted))


def can_sleep(state: State, slot: Slot) -> bool:
    """Would it sleep well: it knows how, did so before, and the host has room for what it leaves there."""
    spec = slot.spec
    more = max(0, spec.asleep_host_mib - slot.held_host)
    return (
        bool(spec.sleep_level)
        and not slot.outdated
        and slot.sleep_failures < SLEEP_FAILURES
        and more <= state.machine.host_budget_mib - state.host_mib
    )


# queues


def line(state: State, model: str, lease: str | None) -> Line:
    """Where requests of one model under one lease (or none) stand."""
    lines = state.lines.setdefault(model, {})
    found = lines.get(lease)
    if found is None:
        found = lines[lease] = Line(model, lease)
    return found


def lane(state: State, spec: Spec, lease: str | None) -> Lane:
    """Where models of the same GPUs wait for their place."""
    key = (tuple(sorted(spec.gpu_mib)), lease)
    found = state.lanes.get(key)
    if found is None:
        found = state.lanes[key] = Lane()
    return found


def serves(slot: Slot, lease: str | None) -> bool:
    """Is it up for requests under this lease (or none)?"""
    return slot.residency == "ready" and slot.lease == lease and not slot.outdated


def show(state: State, slot: Slot) -> None:
    """Keep the lanes true: a model is in one while somebody waits for it and it is not up for them."""
    for lease, each in state.lines.get(slot.spec.id, {}).items():
        best = None if serves(slot, lease) else each.best(state.queued)
        where = lane(state, slot.spec, lease)
        if where.drop(slot.spec.id) if best is None else where.put(slot.spec.id, best.key):
            state.dirty = True


def enlist(state: State, entries: Sequence[Waiting | Asking], places: Iterable[int]) -> None:
    """These wait for memory of these places from now, oldest first. Who did so before keeps what he has waited for already.

    Only who is older counts as ahead: also younger ones may wait here already.
    """
    overtakes, youngest = state.machine.max_overtakes, entries[0].seq == state.seq
    for place in places:
        crowd = state.crowds[place]
        ages = [] if youngest else sorted(age for age, other in state.queued.items() if place in other.limits)
        new = 0
        for entry in entries:
            if place not in entry.limits:
                ahead = crowd.size if youngest else bisect_left(ages, entry.seq) + new
                entry.limits = {**entry.limits, place: crowd.departed + ahead + overtakes}
                crowd.size += 1
                new += 1
            heappush(crowd.ages, (entry.limits[place], entry.seq))


def delist(state: State, entry: Waiting | Asking) -> None:
    """It does not wait for memory any more."""
    for place in entry.limits:
        crowd = state.crowds[place]
        crowd.size -= 1
        crowd.departed += 1
    entry.limits = NOTHING


def enqueue(state: State, waiting: Waiting) -> None:
    """Put a request (back) where the requests of its first model stand."""
    state.waiting[waiting.request] = waiting
    state.queued[waiting.seq] = waiting
    model = waiting.models[0]
    slot = state.slots[model]
    line(state, model, waiting.lease).add(waiting, state.machine.max_overtakes)
    state.timers.set("deadline", waiting.request, waiting.deadline)
    waiting.up = serves(slot, waiting.lease)
    if not waiting.up:
        enlist(state, (waiting,), slot.crowds)
        show(state, slot)


def dequeue(state: State, waiting: Waiting) -> None:
    """Take a request out."""
    del state.waiting[waiting.request], state.queued[waiting.seq]
    state.timers.cancel("deadline", waiting.request)
    delist(state, waiting)
    slot = state.slots[waiting.models[0]]
    state.lines[slot.spec.id][waiting.lease].leave()
    if not serves(slot, waiting.lease):
        show(state, slot)


def grant(state: State, request: str, slot: Slot, *, passes: bool = True) -> None:
    """The request may use the model. `passes`: it passed those who wait for the model's memory."""
    give(state, request, slot, passes=passes)
    state.out.append(Grant(request, slot.spec.id, slot.life))


def give(state: State, request: str, slot: Slot, *, passes: bool = True) -> None:
    """A grant that nobody needs to be told of."""
    now, model = state.now, slot.spec.id
    if passes and slot.in_way:
        for place in slot.crowds:
            state.crowds[place].departed += 1
    state.granted[request] = model
    slot.inflight += 1
    slot.last_used = now
    slot.dismissed = False
    slot.rate = slot.rate * 0.5 ** ((now - slot.rate_at) / HALF_LIFE_S) + 1.0
    slot.rate_at = now


def refuse(state: State, request: str, code: RefuseCode, reason: str, retry_after_s: float | None) -> None:
    """The request gets an error, and leaves the queue if it is there."""
    waiting = state.waiting.get(request)
    if waiting is not None:
        dequeue(state, waiting)
    state.out.append(Refuse(request, code, reason, retry_after_s))
