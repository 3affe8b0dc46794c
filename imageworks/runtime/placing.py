"""Who comes up next, and who goes for it: one look over everything that waits for memory.

Owns the order of that look: models that a lease was handed to, then waiters that were passed too often, then priority
and age, then residents, then models that come back after an exclusive lease. Only the front of each lane is looked at,
so the work does not grow with the number of models or waiters. What waits for busy models reserves what it needs, and
marks them as in the way. Loads and unloads on one GPU happen one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from imageworks.runtime import leasing, lives
from imageworks.runtime.asking import ask_of
from imageworks.runtime.events import WouldBlock
from imageworks.runtime.eviction import FITS, Plan, fits, idle, need_of, plan
from imageworks.runtime.residency import DOWN, Need, Slot
from imageworks.runtime.serving import left, resting, serve
from imageworks.runtime.state import State
from imageworks.runtime.waiting import Asking, Key, Waiting

LOOK = 3
"""So many of each lane are looked at: the first, and some that may fit beside what it waits for."""
DUE = 2
"""So many of those who were passed often enough are looked at, at each place."""
PASSES = 8
"""A look may allow another one: it starts, stops and grants, and each changes what is free."""
URGENT, LAST = -(10**9), (10**9, 0)
Candidate = tuple[Key, str, str | None, bool]
"""Key, model or ask, lease, is it a call for a lease?"""


@dataclass(slots=True)
class Turn:
    """One look: what is reserved so far, and for each lane the plan and need of the first who waits for others to go.

    `barred` are models that do not come up beside one that waits already.
    """

    reserved: dict[int, int] = field(default_factory=dict)
    barred: set[str] = field(default_factory=set)
    plans: dict[tuple[tuple[int, ...], str | None], tuple[Plan, Need]] = field(default_factory=dict)


def settle(state: State) -> None:
    """Look until nothing changes."""
    for _ in range(PASSES):
        if not state.dirty or not state.adopted:
            return
        state.dirty = False
        before = len(state.out)
        _look(state)
        if state.fresh:
            after = state.out[before:]  # who was waiting for what just came up is served first
            del state.out[before:]
            for name in [name for name in state.fresh if state.slots[name].fresh]:
                lives.serve_first(state, state.slots[name])
            state.fresh.clear()
            state.out += after


def _look(state: State) -> None:
    marked, state.marked = state.marked, []
    for name in marked:
        if name in state.slots:
            state.slots[name].in_way = ()
    if not state.draining:
        turn = Turn()
        for name in tuple(state.heirs):
            _bring_heir(state, name, turn)
        for _, name, lease, asks in _front(state):
            if asks:
                _place_ask(state, int(name), turn)
            else:
                _place_model(state, state.slots[name], lease, turn)
        _bring_residents(state, turn)
        _bring_back(state, turn)
        _let_go(state)
    state.dirty = False  # what was begun just now only takes
    for name in marked:
        if name in state.lines and name in state.slots and not state.slots[name].fresh:
            serve(state, state.slots[name])


# order


def _front(state: State) -> list[Candidate]:
    """The front of every lane, in order, with those first that were passed too often.

    Where all GPUs of a lane move, only its first is looked at, for what it reserves and who is in its way; and nobody
    where there is nothing but what moves.
    """
    found: dict[tuple[str, str | None, bool], Key] = {}
    gpus = state.gpus
    moving = {gpu for gpu, book in gpus.items() if book.moving}
    alone = {gpu for gpu in moving if len(gpus[gpu].claims) <= len(gpus[gpu].moving)}
    lanes = [(places, lease, each) for (places, lease), each in state.lanes.items() if each.keys]
    for places, lease, each in lanes:
        still = bool(places) and moving.issuperset(places)
        if not still or len(lanes) > 1 or not alone.issuperset(places):
            for key, name in each.first(1 if still else LOOK):
                found[name, lease, False] = _urgent(state, state.lines[name][lease].oldest(state.queued)) or key
    if state.asks.keys and len(alone) < len(gpus):
        for key, name in state.asks.first(LOOK):
            found[name, None, True] = _urgent(state, ask_of(state, int(name))) or key
    for place, crowd in state.crowds.items():
        for entry in crowd.overdue(state.queued, place, DUE) if crowd.size and place not in alone else ():
            what = _what(entry)
            found[what] = min(found.get(what, LAST), (URGENT, entry.seq))
    return sorted((key, name, lease, asks) for (name, lease, asks), key in found.items())


def _urgent(state: State, entry: Waiting | Asking | None) -> Key | None:
    """The place of one that was passed often enough."""
    if entry is None or not entry.limits or left(state, entry.limits) > 0:
        return None
    return URGENT, entry.seq


def _what(entry: Waiting | Asking) -> tuple[str, str | None, bool]:
    return (str(entry.seq), None, True) if isinstance(entry, Asking) else (entry.models[0], entry.lease, False)


# models


def _place_model(state: State, slot: Slot, lease: str | None, turn: Turn) -> None:
    """Let a model come up for who waits for it, or make room; what it waits for is reserved."""
    if slot.residency not in DOWN and slot.residency != "asleep":
        return  # on its way up, on its way down, or up for somebody else
    if slot.residency == "asleep":
        if slot.outdated or slot.lease not in (None, lease):
            return  # it is about to go, or sleeps inside somebody's lease
        lease = slot.lease
    if slot.spec.id in turn.barred or resting(state, slot) or _shut(state, slot, lease):
        return
    need = need_of(state, slot, lease)
    moving = _in_motion(state, slot.spec.gpu_mib)
    lane = (tuple(slot.spec.gpu_mib), lease)
    before = turn.plans.get(lane)
    if before is not None and not need.never_with:
        # somebody of its lane waits already: it gets what is left, and the same models are in its way
        found: Plan | None = FITS if fits(state, need, turn.reserved) else before[0]
    else:
        found = plan(state, need, turn.reserved)
    if found is FITS and not moving and (lease is None or _seen_free(state, slot, lease)):
        _come_up(state, slot, lease, "a request waits")
    elif found is FITS and not moving:
        _reserve(state, turn, need)  # until the lease's holder uses less
    elif found is None:
        _wait_behind(state, slot, lease, need, turn)
    else:
        if before is None:
            turn.plans[lane] = found, need
            _clear(state, found, f"room for `{slot.spec.id}`", _age(state, slot, lease), may=not moving)
        else:
            _mark(state, _in_its_way(state, need, *before), _age(state, slot, lease))
        _reserve(state, turn, need)


def _in_its_way(state: State, need: Need, first: Plan, firsts: Need) -> Plan:
    """Who has to go before this need is met: for one that is larger than the lane's first, others as well."""
    if all(amount <= firsts.pools.get(pool, 0) for pool, amount in need.pools.items()):
        return first
    own = plan(state, need, {})
    return first if own is None or not own.leave else own


def _seen_free(state: State, slot: Slot, lease: str) -> bool:
    """Is there room for all that it will use? In the books it takes what the lease has; there others may use that still.

    After a restart more may have been found on a GPU than fits, or somebody in an exclusive lease's: these go first.
    """
    for gpu, mib in slot.spec.gpu_mib.items():
        book = state.gpus[gpu]
        free = book.unused()
        if free is not None and mib - slot.held.get(gpu, 0) > free:
            return False
        if book.claimed_mib > book.budget_mib or (book.exclusive == lease and len(book.claims) > 1):
            return False
    return True


def _wait_behind(state: State, slot: Slot, lease: str | None, need: Need, turn: Turn) -> None:
    """Somebody before it takes what it needs; who is in its way is in its way all the same."""
    found = plan(state, need, {}) if turn.reserved else None
    if found is not None:
        _mark(state, found, _age(state, slot, lease))
    if _in_motion(state, slot.spec.gpu_mib):
        _reserve(state, turn, need)


def _come_up(state: State, slot: Slot, lease: str | None, cause: str) -> None:
    if lease is not None:
        slot.lease = lease
        state.holds[lease].models.add(slot.spec.id)
    if state.machine.observe:
        _would_block(state, slot)
    lives.start(state, slot, cause)


def _shut(state: State, slot: Slot, lease: str | None) -> bool:
    """Does an exclusive lease keep it out?"""
    if state.machine.observe:
        return False
    for gpu in slot.spec.gpu_mib:
        owner = state.gpus[gpu].exclusive if gpu in state.gpus else None
        if owner is not None and owner != lease:
            return True
    return False


def _in_motion(state: State, gpus: Iterable[int]) -> bool:
    for gpu in gpus:  # noqa: SIM110 - asked for every candidate, a generator takes twice as long
        if gpu in state.gpus and state.gpus[gpu].moving:
            return True
    return False


def _reserve(state: State, turn: Turn, need: Need) -> None:
    """Nobody who comes later takes it; who wants to be alone reserves the whole GPU."""
    turn.barred.update(need.never_with)
    for pool, amount in need.pools.items():
        turn.reserved[pool] = turn.reserved.get(pool, 0) + (state.gpus[pool].budget_mib if need.exclusive else amount)


def _clear(state: State, found: Plan, cause: str, mark: int, *, may: bool = True) -> bool:
    """Let the models of a plan go if all of them `may` now; else mark them with the age of who waits (0: nobody does)."""
    if found.busy or not may:
        _mark(state, found, mark)
        if found.until is not None:
            state.timers.set("residency", found.leave[0][0], found.until)
        return False
    for name, may_sleep in found.leave:
        slot = state.slots[name]
        if idle(state, slot):
            if may_sleep:
                lives.sleep(state, slot, cause)
            else:
                lives.stop(state, slot, cause)
    return True


def _mark(state: State, found: Plan, age: int) -> None:
    for name, _ in found.leave if age else ():
        state.slots[name].in_way += (age,)
        state.marked.append(name)


def _age(state: State, slot: Slot, lease: str | None) -> int:
    """Of who may be passed least among those who wait for this model; 0: nobody waits."""
    each = state.lines.get(slot.spec.id, {}).get(lease)
    if each is None or (oldest := each.oldest(state.queued)) is None:
        return 0
    if oldest.limits and left(state, oldest.limits) <= 0:
        return oldest.seq
    nearest = each.nearest(state.queued)
    return 0 if nearest is None else nearest.seq


def _would_block(state: State, slot: Slot) -> None:
    """Leases are only observed: say what would have kept this model down."""
    for gpu, mib in slot.spec.gpu_mib.items():
        book = state.gpus[gpu]
        leased = sum(book.unbinding.values())
        if leased and (book.exclusive is not None or book.room(state.now) - leased < mib):
            who = ", ".join(sorted(book.unbinding))
            state.out.append(WouldBlock(slot.spec.id, f"{mib} MiB on GPU {gpu}, leased: {leased} MiB by {who}"))


# leases


def _place_ask(state: State, seq: int, turn: Turn) -> None:
    """Give a lease, or make room for it."""
    asking = ask_of(state, seq)
    if state.machine.observe:
        _give_anyway(state, asking)
        return
    choice = _choose(state, asking, turn.reserved)
    if choice is None and asking.chosen:  # these GPUs cannot be cleared any more; others may do
        asking.chosen = ()
        choice = _choose(state, asking, turn.reserved)
    if choice is None:
        choice = _choose(state, asking, {}) if turn.reserved else None
        if choice is not None:
            _mark(state, choice[1], asking.seq)
        return
    gpus, found = choice
    need = _ask_need(asking, gpus)
    if found is FITS:
        leasing.give(state, asking, gpus)
    elif asking.deadline > state.now:  # nobody goes for who does not wait
        if _clear(state, found, f"room for a lease of {asking.ask.owner}", asking.seq):
            asking.chosen = gpus
            if asking.ask.exclusive:
                asking.evicted += _newly_gone(state, asking, found)
        _reserve(state, turn, need)


def _newly_gone(state: State, asking: Asking, found: Plan) -> tuple[str, ...]:
    """Who of a plan goes for this ask from now. One that has to wait for another's stop may still never have to."""
    leaving = (name for name, _ in found.leave if state.slots[name].residency in ("stopping", "sleeping"))
    return tuple(name for name in leaving if name not in asking.evicted)


def _ask_need(asking: Asking, gpus: tuple[int, ...]) -> Need:
    ask = asking.ask
    return Need("", dict.fromkeys(gpus, ask.mib), exclusive=ask.exclusive, patient=False)


def _choose(state: State, asking: Asking, reserved: Mapping[int, int]) -> tuple[tuple[int, ...], Plan] | None:
    """The GPUs that would do with the least loss, and what has to go there; None where nothing would do."""
    ask = asking.ask
    if ask.gpus or asking.chosen:
        gpus = ask.gpus or asking.chosen
        found = _plan_ask(state, asking, gpus, reserved)
        return None if found is None else (gpus, found)
    ranked = []
    for gpu in state.gpus:
        found = _plan_ask(state, asking, (gpu,), reserved)
        if found is not None:
            ranked.append((found is not FITS, found.busy, found.cost, -state.gpus[gpu].room(state.now), gpu))
    if len(ranked) < ask.count:
        return None
    gpus = tuple(sorted(each[-1] for each in sorted(ranked)[: ask.count]))
    found = _plan_ask(state, asking, gpus, reserved)
    return None if found is None else (gpus, found)


def _plan_ask(state: State, asking: Asking, gpus: tuple[int, ...], reserved: Mapping[int, int]) -> Plan | None:
    """As `plan`; a GPU in motion or with another's exclusive lease is waited for."""
    if any(state.gpus[gpu].exclusive is not None or state.gpus[gpu].lost for gpu in gpus):
        return None
    found = plan(state, _ask_need(asking, gpus), reserved)
    if found is not None and _in_motion(state, gpus):
        return Plan(found.leave, busy=True, cost=found.cost)
    return found


def _give_anyway(state: State, asking: Asking) -> None:
    """Leases are only observed: every one is given, and said when it would have had to wait."""
    ask = asking.ask
    free = sorted(
        state.gpus,
        key=lambda gpu: (state.gpus[gpu].lost, len(state.gpus[gpu].leases), -state.gpus[gpu].room(state.now), gpu),
    )
    gpus = ask.gpus or tuple(sorted(free[: ask.count]))
    for gpu in gpus:
        book = state.gpus[gpu]
        others = sorted({*book.claims, *book.leases})
        short = ask.mib - book.room(state.now) + sum(book.unbinding.values())
        if book.exclusive or short > 0 or (ask.exclusive and others):
            reason = f"{ask.mib} MiB on GPU {gpu}, where {', '.join(others) or 'nobody'} is"
            state.out.extend(WouldBlock(call, reason) for call in asking.calls)
    leasing.give(state, asking, gpus)


# who comes without being asked for


def _bring_heir(state: State, name: str, turn: Turn) -> None:
    """The model that a lease was handed to is loaded before everything else."""
    slot = state.slots.get(name)
    if (
        slot is None
        or slot.residency in ("ready", "starting", "waking")
        or resting(state, slot)
        or _shut(state, slot, None)
    ):
        del state.heirs[name]
        return
    _place_model(state, slot, None, turn)
    if slot.residency in ("starting", "waking"):
        state.heirs.pop(name, None)


def _bring_residents(state: State, turn: Turn) -> None:
    """Residents come up when nobody who waits needs the memory."""
    for name in sorted(state.absent, key=state.rank.__getitem__):
        slot = state.slots[name]
        in_turn = any(
            state.slots[other].residency == "starting" for other in slot.spec.in_turn_with if other in state.slots
        )
        if not slot.dismissed and not in_turn and slot.residency in DOWN:
            _bring(state, slot, turn, "resident", evict=True)


def _bring_back(state: State, turn: Turn) -> None:
    """Models that went for an exclusive lease come back, if nobody waits for these GPUs."""
    for name in tuple(state.wishes):
        slot = state.slots.get(name)
        wanted = slot is not None and any(state.crowds[gpu].size for gpu in slot.spec.gpu_mib if gpu in state.crowds)
        if slot is None or slot.residency not in DOWN or resting(state, slot) or wanted:
            if slot is None or slot.residency not in ("stopping", "reclaiming"):
                del state.wishes[name]
        elif _bring(state, slot, turn, "back after a lease", evict=False):
            state.wishes.pop(name, None)


def _bring(state: State, slot: Slot, turn: Turn, cause: str, *, evict: bool) -> bool:
    """True when it starts, or never will."""
    if slot.spec.id in turn.barred or resting(state, slot) or _shut(state, slot, None):
        return False
    if _in_motion(state, slot.spec.gpu_mib):
        return False
    found = plan(state, need_of(state, slot, None), turn.reserved)
    if found is FITS:
        _come_up(state, slot, None, cause)
        return True
    if found is not None and evict:
        _clear(state, found, f"room for resident `{slot.spec.id}`", 0)
    return found is None or not evict


def _let_go(state: State) -> None:
    """Models that are to go, and can: dismissed, removed, or idle for their grace."""
    for name in tuple(state.leaving):
        slot = state.slots.get(name)
        wanted = slot is not None and any(each.size for each in state.lines.get(name, {}).values())
        unwanted = slot is not None and (slot.dismissed or slot.removed or slot.outdated)
        if slot is None or slot.residency not in ("ready", "asleep") or (slot.inflight and not unwanted):
            if slot is None or slot.residency in DOWN or not unwanted:
                del state.leaving[name]
        elif wanted and not (slot.removed or slot.outdated):
            continue
        elif idle(state, slot):
            del state.leaving[name]
            _retire(state, slot)


def _retire(state: State, slot: Slot) -> None:
    if slot.outdated:
        lives.stop(state, slot, "it runs as the plan does not say any more")
    elif slot.dismissed or slot.removed:
        lives.stop(state, slot, "unloaded by a person" if slot.dismissed else "not in the plan any more")
    elif slot.residency == "ready" and not slot.spec.kept and slot.last_used + slot.spec.grace_s <= state.now:
        lives.retire(state, slot, "idle")
