"""The two events that change the ground: what was found at start, and another plan.

Owns Adopt (nothing is granted before it) and Reload. Both keep every byte that is held in the books.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from imageworks.runtime import events as ev
from imageworks.runtime import leasing
from imageworks.runtime.book import Gpu
from imageworks.runtime.leases import Lease
from imageworks.runtime.residency import DOWN, Move, Residency, Slot
from imageworks.runtime.serving import rest, serve, turn_away, unloadable
from imageworks.runtime.state import State, claim, claim_all, forget, know, move, respec, show, stand
from imageworks.runtime.waiting import Crowd

LIVING: frozenset[Residency] = frozenset({"starting", "ready", "sleeping", "asleep", "waking"})
FOUND: dict[str, Move] = {"starting": "found starting", "ready": "found ready", "asleep": "found asleep"}


def adopt(state: State, event: ev.Adopt) -> None:
    """Begin with what runs and what was held. A second time it says nothing new."""
    if state.adopted:
        return
    state.adopted = state.dirty = True
    for gpu, token in event.tokens.items():
        if gpu in state.gpus:
            state.gpus[gpu].token = max(state.gpus[gpu].token, token)
    for lease in event.leases:
        _adopt_lease(state, lease)
    for name, slot in state.slots.items():
        slot.load_s = event.load_s.get(name)
        slot.last_used = state.now
        if slot.spec.managed and (seen := event.observed.get(name)) is not None:
            _adopt_model(state, slot, FOUND[seen])
        if slot.residency == "ready":
            slot.fresh = True
            state.fresh.append(name)
    for book in state.gpus.values():
        book.reckon()  # what seemed to be a stranger's is ours


def _adopt_model(state: State, slot: Slot, found: Move) -> None:
    spec = slot.spec
    slot.life += 1
    slot.began = state.now
    slot.tokens = {gpu: state.gpus[gpu].next_token() for gpu in spec.gpu_mib}
    asleep = found == "found asleep"
    slot.lease = _lease_around(state, spec.asleep_mib if asleep else spec.gpu_mib)
    if slot.lease is not None:
        state.holds[slot.lease].models.add(spec.id)
    if asleep:
        claim(state, slot, spec.asleep_mib, spec.asleep_host_mib, 0)
    else:
        claim_all(state, slot)
    state.absent.pop(spec.id, None)
    move(state, slot, found, "found at start")


def _lease_around(state: State, held: Mapping[int, int]) -> str | None:
    """Who holds this on GPUs that somebody has for himself, or where there is no room for it, can only live in a lease."""
    if state.machine.observe or not held:
        return None
    books = {gpu: state.gpus[gpu] for gpu in held}
    around = [name for name, lease in state.leases.items() if books.keys() <= lease.tokens.keys()]
    alone = any(book.exclusive is not None for book in books.values())
    full = any(books[gpu].claimed_mib + mib > books[gpu].budget_mib for gpu, mib in held.items())
    if not around or not (alone or full):
        return None
    return max(around, key=lambda name: (state.leases[name].ask.exclusive, state.leases[name].ask.mib, name))


def _adopt_lease(state: State, lease: Lease) -> None:
    """Leases are bound to UUIDs: they follow their GPU to another slot, and end with it."""
    places = _places(state, lease)
    if places is None:
        state.ended[lease.id] = replace(lease, state="free")
        state.out.append(
            ev.Moved(lease.id, "lease", lease.state, "free", "its GPU is not there any more", lease.tokens)
        )
        state.out.append(ev.LeaseEnded(lease.id, "gpu_lost"))
        return
    tokens = {places[gpu]: token for gpu, token in lease.tokens.items()}
    for gpu, token in tokens.items():
        state.gpus[gpu].token = max(state.gpus[gpu].token, token)
    here = replace(
        lease,
        tokens=tokens,
        uuids={places[gpu]: uuid for gpu, uuid in lease.uuids.items()},
        expires=state.now + lease.ask.ttl_s,
    )
    leasing.hold(state, here)
    if here.state != "active":
        leasing.resume(state, here)


def _places(state: State, lease: Lease) -> dict[int, int] | None:
    """Where the GPUs of a lease are now."""
    by_uuid = {book.uuid: gpu for gpu, book in state.gpus.items() if book.uuid}
    places = {}
    for gpu in lease.tokens:
        uuid = lease.uuids.get(gpu, "")
        now = by_uuid.get(uuid) if uuid and by_uuid else gpu
        if now is None or now not in state.gpus:
            return None
        places[gpu] = now
    return places


def reload(state: State, event: ev.Reload) -> None:
    """Another plan is in force. What is up stays as it is until it goes; what is not known any more goes when idle."""
    state.machine = event.machine
    _gpus(state)
    for name in tuple(state.slots):
        if name not in event.machine.specs:
            _remove(state, state.slots[name])
    for name, spec in event.machine.specs.items():
        slot = state.slots.get(name)
        if slot is None:
            slot = state.slots[name] = Slot(spec, residency="stopped" if spec.managed else "ready", last_used=state.now)
        else:
            respec(state, slot, spec)
        slot.removed = slot.fatal = slot.dismissed = False
        slot.failures, slot.retry_at = 0, state.now
        state.leaving.pop(name, None)
        if spec.resident and slot.residency in DOWN:
            state.absent[name] = None
        _judge(state, slot, outdated=name in event.outdated and slot.residency in LIVING)
    know(state)
    for slot in state.slots.values():
        show(state, slot)
        if slot.residency == "ready" and slot.spec.managed and not slot.removed:
            _go_on(state, slot)
    for name in tuple(state.lines):  # what is kept now may leave no room, ever, for what others wait for
        if unloadable(state, name) is not None:
            turn_away(state, state.slots[name], "cannot_be_loaded")
    state.dirty = True


def _judge(state: State, slot: Slot, *, outdated: bool) -> None:
    """Does it run as the plan says? Where not, it goes when idle, and who waits for it waits for its next life."""
    changed, slot.outdated = slot.outdated != outdated, outdated
    if outdated:
        state.leaving[slot.spec.id] = None
    if changed and slot.residency == "ready":
        stand(state, slot)


def _go_on(state: State, slot: Slot) -> None:
    """It is up under another plan: more may be let in, and it may stay for another time."""
    state.timers.cancel("grace", slot.spec.id)
    if not slot.fresh:
        serve(state, slot)
        if not slot.inflight:
            rest(state, slot)


def _gpus(state: State) -> None:
    machine = state.machine
    for gpu in {*state.gpus, *machine.gpu_budget_mib}:
        budget = machine.gpu_budget_mib.get(gpu, 0)
        if gpu not in state.gpus:
            state.gpus[gpu] = Gpu(gpu, machine.uuids.get(gpu, ""), budget, measured=machine.measured)
            state.crowds[gpu] = Crowd()
        state.gpus[gpu].budget_mib = budget
        state.gpus[gpu].measured |= machine.measured
        state.gpus[gpu].uuid = machine.uuids.get(gpu, state.gpus[gpu].uuid)


def _remove(state: State, slot: Slot) -> None:
    slot.removed, slot.next_spec = True, None
    state.absent.pop(slot.spec.id, None)
    turn_away(state, slot, "model_removed")
    if slot.residency in DOWN or not slot.spec.managed:
        if not slot.inflight:
            forget(state, slot)
    else:
        state.leaving[slot.spec.id] = None
