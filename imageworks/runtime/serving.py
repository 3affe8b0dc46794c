"""Requests: who may come in, who is served next, who is refused and why.

Owns the events Arrive, Finish and Cancel, the deadlines of requests, and the lines of models that are up. Each request
is granted or refused exactly once.
"""

from __future__ import annotations

from collections.abc import Mapping

from imageworks.runtime.events import Arrive, Cancel, Finish, RefuseCode, WouldBlock
from imageworks.runtime.eviction import available, need_of
from imageworks.runtime.residency import COUNT, DOWN, HOST, Slot
from imageworks.runtime.state import NOTHING, State, dequeue, enqueue, forget, give, grant, refuse, serves
from imageworks.runtime.waiting import Key, Line, Waiting


def arrive(state: State, event: Arrive) -> None:
    """A new request: granted at once, queued, or refused."""
    request = event.request
    if request in state.granted or request in state.waiting or not event.models:
        raise ValueError(f"not a new request: {event}")
    slot = state.slots.get(event.models[0])
    if slot is not None and event.lease is None and _open(state, slot):
        if state.machine.observe:
            _would_block(state, request, slot)
        if not gated(state, slot, (-event.priority, state.seq + 1)):
            grant(state, request, slot)
            return
    _queue(state, event)


def try_grant(state: State, request: str, model: str, now: float) -> int | None:
    """What Arrive does for a request that will not wait: the model's life where it is granted, else None and nothing happened.

    Without events and effects, for it is asked once for every request that a busy model serves.
    """
    slot = state.slots.get(model)
    if slot is None or state.machine.observe or request in state.granted or not _open(state, slot):
        return None
    if slot.in_way:  # somebody waits for its memory: that needs a closer look
        return None
    if now > state.now:  # noqa: PLR1730 - a call costs more, and this is asked for every request
        state.now = now
    give(state, request, slot)
    return slot.life


def _open(state: State, slot: Slot) -> bool:
    """Is it up, with a free place that nobody waits for?"""
    if slot.residency != "ready" or slot.inflight >= slot.spec.concurrency or slot.lease is not None:
        return False
    if not state.adopted or state.draining or slot.removed or slot.outdated:
        return False
    lines = state.lines.get(slot.spec.id)
    return lines is None or None not in lines or not lines[None].size


def _queue(state: State, event: Arrive) -> None:
    request = event.request
    if state.draining:
        return refuse(state, request, "shutting_down", "the proxy is stopping", 1.0)
    if event.lease is not None and (reason := stale(state, event.lease, event.token)) is not None:
        return refuse(state, request, "stale_token", reason, None)
    known = tuple(name for name in event.models if name in state.slots and not state.slots[name].removed)
    if not known:
        return refuse(state, request, "model_removed", f"`{event.models[0]}` is not in the plan any more", None)
    possible = tuple(name for name in known if unloadable(state, name) is None)
    if not possible:
        return refuse(state, request, "cannot_be_loaded", unloadable(state, known[0]) or "", None)
    models = tuple(name for name in possible if not resting(state, state.slots[name]))
    if not models:
        return _refuse_resting(state, request, possible, "model_resting")
    if len(state.waiting) >= state.machine.queue and not (
        state.adopted and _free_place(state, models[0], event.priority)
    ):
        return refuse(state, request, "queue_full", f"{state.machine.queue} requests are waiting already", 1.0)
    state.seq += 1
    waiting = Waiting(request, models, event.deadline, state.seq, event.priority)
    waiting.lease = _lease_for(state, waiting, event.lease)
    enqueue(state, waiting)
    serve(state, state.slots[models[0]])
    return None


def _lease_for(state: State, waiting: Waiting, lease: str | None) -> str | None:
    """A lease matters to a request only where its model lives, or would come up, inside it."""
    if lease is None or lease not in state.leases:
        return None
    slot = state.slots[waiting.models[0]]
    if slot.lease == lease:
        return lease
    if slot.lease is None and slot.residency not in DOWN:
        return None
    gpus = slot.spec.gpu_mib.keys()
    return lease if gpus and gpus <= state.leases[lease].tokens.keys() else None


def _free_place(state: State, model: str, priority: int) -> bool:
    slot = state.slots[model]
    return _open(state, slot) and not gated(state, slot, (-priority, state.seq + 1))


def stale(state: State, lease: str, token: int | None) -> str | None:
    """Why this lease and token are worth nothing now; None when they are good."""
    held = state.leases.get(lease)
    if held is None or held.state != "active":
        return f"lease {lease} is over"
    if token != held.token:
        return f"token {token} of lease {lease} is not the one that is valid now"
    return None


def finish(state: State, event: Finish) -> None:
    """A granted request is over. Raises ValueError for one that was not granted."""
    model = state.granted.pop(event.request, None)
    if model is None:
        raise ValueError(f"not granted: {event.request}")
    slot = state.slots[model]
    slot.inflight -= 1
    slot.last_used = state.now
    if event.ok and slot.residency == "ready":
        slot.failures = 0
        slot.retried = False
    serve(state, slot)
    if not slot.inflight:
        rest(state, slot)


def try_finish(state: State, request: str, *, ok: bool, now: float) -> bool:
    """What Finish does where that changes nothing for anybody: others are served on, and nobody waits; else False and nothing happened."""
    slot = state.slots.get(state.granted.get(request, ""))
    if slot is None or slot.inflight < 2 or state.waiting or slot.in_way:  # noqa: PLR2004 - another one beside this
        return False
    if now > state.now:  # noqa: PLR1730 - as in try_grant
        state.now = now
    del state.granted[request]
    slot.inflight -= 1
    slot.last_used = state.now
    if ok and slot.residency == "ready":
        slot.failures = 0
        slot.retried = False
    return True


def cancel(state: State, event: Cancel) -> None:
    """The client is gone; one that is not known any more is no error."""
    waiting = state.waiting.get(event.request)
    if waiting is not None:
        dequeue(state, waiting)
        state.dirty = True
    elif event.request in state.granted:
        finish(state, Finish(event.request, ok=False))


def rest(state: State, slot: Slot) -> None:
    """Nothing is in flight any more: time begins to count against it, and others may want its memory."""
    name = slot.spec.id
    if slot.removed and (slot.residency in DOWN or not slot.spec.managed):
        return forget(state, slot)
    if slot.dismissed or slot.removed or slot.outdated:
        state.leaving[name] = None
    if (
        slot.residency == "ready"
        and slot.spec.managed
        and not slot.spec.kept
        and ("grace", name) not in state.timers.at
    ):
        state.timers.set("grace", name, slot.last_used + slot.spec.grace_s)
    if slot.in_way or name in state.leaving or state.absent or state.heirs:
        state.dirty = True  # in the way also of who waits elsewhere and is never loaded beside it
    elif any(state.crowds[place].size for place in slot.crowds):
        state.dirty = True
    return None


def serve(state: State, slot: Slot) -> None:
    """Grant free places to the line of a model that is up."""
    lines = state.lines.get(slot.spec.id)
    each = lines.get(slot.lease) if lines is not None else None
    if each is None or not state.adopted or slot.residency != "ready" or slot.outdated:
        return
    while each.size and slot.inflight < slot.spec.concurrency:
        waiting = _turn_of(state, slot, each)
        if waiting is None:
            return
        if state.machine.observe:
            _would_block(state, waiting.request, slot)
        enlisted = bool(waiting.limits)
        dequeue(state, waiting)
        grant(state, waiting.request, slot, passes=not enlisted)


def _turn_of(state: State, slot: Slot, each: Line) -> Waiting | None:
    """Who of a line is served next; who must let others go first is passed over."""
    waiting = each.next(state.queued)
    if waiting is None or not gated(state, slot, waiting.key, waiting.limits):
        return waiting
    for other in (each.oldest(state.queued), each.best(state.queued)):
        if other is not None and not gated(state, slot, other.key, other.limits):
            return other
    return None


def gated(state: State, slot: Slot, key: Key, own: Mapping[int, int] = NOTHING) -> bool:
    """Must a request of this place in the order let somebody go first who waits for what this model holds?

    Who was passed `max_overtakes` times goes first, but for one request of a model that was just loaded for it. With several
    who wait for different models, the model that is up stops earlier, once each of them was passed by their share: else all
    of them would be due at once, and every request would cost a swap. `own` are the limits of the request itself. The share
    for `n` models is 2 K / (n (n - 1)), from the exact optimum of small cases. It does not hold back who is more urgent:
    that one would be placed first again, and the model come up for nothing.
    """
    most = state.machine.max_overtakes
    least, models = most, 1
    due = bool(own) and left(state, own) <= 0
    for age in slot.in_way:
        entry = state.queued.get(age)
        if entry is not None and entry.limits:  # else it went on to a model that is up, since it was seen to wait
            passed = most - left(state, entry.limits)
            if passed >= most and age < key[1] and not (slot.fresh and (due or not slot.inflight)):
                return True
            if entry.key < key:
                models += 1
                least = min(least, passed)
    if slot.fresh or due:
        return False  # nobody loads a model for nothing, and who was passed often enough goes first himself
    return models > 1 and least >= max(1, 2 * most // (models * (models - 1)))


def left(state: State, limits: Mapping[int, int]) -> int:
    """How often somebody who waits may still be passed."""
    return min(limit - state.crowds[place].departed for place, limit in limits.items())


def turn_away(state: State, slot: Slot, code: RefuseCode) -> None:
    """The model will not come up soon: its requests go on to their next model, or are refused."""
    for each in tuple(state.lines.get(slot.spec.id, {}).values()):
        for waiting in each.members(state.queued):
            others = tuple(name for name in waiting.models[1:] if name in state.slots and _hope(state, name))
            if others:
                dequeue(state, waiting)
                waiting.models = others
                waiting.lease = _lease_for(state, waiting, waiting.lease)
                enqueue(state, waiting)
                serve(state, state.slots[others[0]])
            else:
                _refuse_resting(state, waiting.request, (slot.spec.id,), code)


def _hope(state: State, model: str) -> bool:
    return not resting(state, state.slots[model]) and unloadable(state, model) is None


def resting(state: State, slot: Slot) -> bool:
    """Would a start be too early now?"""
    return slot.fatal or slot.retry_at > state.now or slot.residency == "quarantined" or slot.removed


def _refuse_resting(state: State, request: str, models: tuple[str, ...], code: RefuseCode) -> None:
    """Say why the first of `models` rests, and how long until one may be tried again."""
    first = state.slots[models[0]]
    if first.residency == "quarantined":
        held_by = f", held by pids {', '.join(map(str, first.pids))}" if first.pids else ""
        reason = f"the memory of `{models[0]}` did not come back after it was stopped{held_by}"
        return refuse(state, request, code, reason, 30.0)
    if first.removed:
        return refuse(state, request, "model_removed", f"`{models[0]}` is not in the plan any more", None)
    if code == "cannot_be_loaded":
        return refuse(state, request, code, unloadable(state, models[0]) or str(first.failure), None)
    if all(state.slots[name].fatal for name in models):
        reason = f"`{models[0]}` failed {first.failures} times in a row: {first.failure}"
        return refuse(state, request, "model_fatal", reason, None)
    rest_s = max(0.0, min(state.slots[name].retry_at for name in models) - state.now)
    return refuse(state, request, code, f"`{models[0]}` failed: {first.failure}", rest_s)


def unloadable(state: State, model: str) -> str | None:
    """Why it could never be loaded with all that is kept staying; None when it could."""
    slot = state.slots[model]
    spec = slot.spec
    if slot.residency not in DOWN and slot.residency != "asleep":
        return None
    for rival in sorted(state.rivals.get(model, ())):
        if state.slots[rival].spec.kept or not state.slots[rival].spec.managed:
            return f"`{model}` is never loaded beside `{rival}`, which is kept loaded"
    for gpu, mib in spec.gpu_mib.items():
        book = state.gpus.get(gpu)
        if book is None or book.lost:
            return f"`{model}` needs GPU {gpu}, which is lost"
        if mib + sum(other.gpu_mib.get(gpu, 0) for other in state.pinned if other.id != model) > book.budget_mib:
            return f"`{model}` does not fit beside the models that are kept loaded ({mib} MiB on GPU {gpu})"
    host = sum(other.host_mib for other in state.pinned if other.id != model)
    if spec.host_mib and spec.host_mib + host > state.machine.host_budget_mib:
        return f"`{model}` does not fit beside the models that are kept loaded ({spec.host_mib} MiB of host memory)"
    if spec.counted and 1 + sum(other.counted for other in state.pinned if other.id != model) > state.machine.count:
        return f"`{model}` does not fit beside the models that are kept loaded ({state.machine.count} models at most)"
    return None


def expire(state: State, request: str) -> None:
    """A request waited as long as it may."""
    waiting = state.waiting[request]
    slot = state.slots[waiting.models[0]]
    model = slot.spec.id
    if (blocker := blocking_lease(state, slot, waiting.lease)) is not None:
        refuse(state, request, "lease_blocks", blocker, 5.0)
    else:
        reason = f"waited too long for `{model}` ({slot.residency}{_lack(state, slot)})"
        refuse(state, request, "queue_timeout", reason, 5.0)


def blocking_lease(state: State, slot: Slot, lease: str | None) -> str | None:
    """Which lease keeps the model from serving, in words."""
    if state.machine.observe or serves(slot, lease):
        return None
    if slot.lease is not None and slot.lease != lease:
        return f"`{slot.spec.id}` runs inside {_words(state, slot.lease)}"
    for gpu, mib in slot.spec.gpu_mib.items() if slot.residency in DOWN else ():
        book = state.gpus[gpu]
        leased = sum(book.claims.get(name, 0) for name in book.leases if name != lease)
        alone = book.exclusive is not None and book.exclusive != lease
        if leased and (alone or book.room(state.now) < mib):
            name = book.exclusive if alone and book.exclusive else min(name for name in book.leases if name != lease)
            return f"`{slot.spec.id}` needs {mib} MiB on GPU {gpu}, blocked by {_words(state, name)}"
    return None


def _words(state: State, name: str) -> str:
    ask = state.leases[name].ask
    kind = "an exclusive lease" if ask.exclusive else "a lease"
    reason = f" for {ask.reason}" if ask.reason else ""
    return f"{kind} of {ask.owner} ({ask.mib} MiB{reason})"


def _lack(state: State, slot: Slot) -> str:
    """What it lacks, in words."""
    if slot.outdated:
        return ", begun before the last reload: it is restarted when its requests end"
    if slot.residency not in DOWN:
        return ""
    for pool, amount in need_of(state, slot, None).pools.items():
        free = available(state, pool)
        if free < amount:
            where = {HOST: "MiB of host memory", COUNT: "places among the models"}.get(pool, f"MiB on GPU {pool}")
            return f", needs {amount} {where}, {max(0, free)} free"
    return ""


def _would_block(state: State, request: str, slot: Slot) -> None:
    """Leases are only observed: say what would have kept this request waiting."""
    for gpu in slot.spec.gpu_mib:
        name = state.gpus[gpu].exclusive
        if name is not None and slot.lease != name:
            state.out.append(WouldBlock(request, f"`{slot.spec.id}` on GPU {gpu}: {_words(state, name)}"))
