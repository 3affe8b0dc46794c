"""The lives of models: what starts, stops, sleeps and wakes them, and what becomes of them when that fails.

Owns the events about models and the effects Start, Stop, Sleep and Wake. A failed life always ends in a Stop before its
memory counts as free, also after a crash. Who is to come up or go is decided elsewhere (`placing`).
"""

from __future__ import annotations

import math

from imageworks.runtime import events as ev
from imageworks.runtime import proof
from imageworks.runtime.residency import DOWN, Slot
from imageworks.runtime.serving import rest, serve, turn_away, unloadable
from imageworks.runtime.state import NOTHING, State, can_sleep, claim, claim_all, forget, know, line, move, respec, show

BACKOFF_S = 5.0
BACKOFF_MAX_S = 300.0
FATAL_AFTER = 6
"""So many failures in a row without a served request, and it is not tried again for FATAL_S or until a person says so."""
FATAL_S = 900.0
STOP_AGAIN_S = 5.0
STOP_FAILURES = 3
"""So many failed stops, and the model counts as unkillable: quarantined, tried again every QUARANTINE_S."""
QUARANTINE_S = 60.0
RESIDENCY_LOADS = 4.0
"""A model stays at least so many times as long as it took to load."""


def backoff_s(failures: int) -> float:
    """Rest after the n-th failure in a row, in seconds: 5, 10, 20 … 300."""
    return float(min(BACKOFF_MAX_S, BACKOFF_S * 2 ** min(failures - 1, 10)))


# up


def start(state: State, slot: Slot, cause: str) -> None:
    """Let it come up: it fits, and nothing moves on its GPUs."""
    slot.began, slot.dismissed = state.now, False
    slot.tokens = {gpu: state.gpus[gpu].next_token() for gpu in slot.spec.gpu_mib}
    slot.base_mib = {
        gpu: mib - slot.held.get(gpu, 0) for gpu in slot.spec.gpu_mib if (mib := _used(state, gpu)) is not None
    }
    for gpu, mib in slot.spec.gpu_mib.items():
        proof.joined(state, slot.spec.id, gpu, mib - slot.held.get(gpu, 0))
    waking = slot.residency == "asleep"
    claim_all(state, slot)
    if waking:
        move(state, slot, "wake", cause)
        state.out.append(ev.Wake(slot.spec.id, slot.tokens))
        return
    slot.failure, slot.own_mib, slot.pids = None, NOTHING, ()
    slot.life += 1
    state.absent.pop(slot.spec.id, None)
    state.timers.cancel("retry", slot.spec.id)
    move(state, slot, "start", cause)
    state.out.append(ev.Start(slot.spec.id, slot.tokens))


def _used(state: State, gpu: int) -> int | None:
    book = state.gpus[gpu]
    return None if book.closed(state.now) else book.used()


def ready(state: State, event: ev.Ready) -> None:
    """It answers with its identity."""
    slot = state.slots.get(event.model)
    if slot is None or slot.residency not in ("starting", "waking"):
        return
    took = state.now - slot.began
    for gpu, base_mib in slot.base_mib.items():
        state.gpus[gpu].came_up(slot.held[gpu], base_mib)
    if slot.residency == "starting":
        slot.load_s = took
    elif slot.own_mib:
        slot.base_mib = NOTHING  # it is known already, and a wake shows only a part of it
    slot.failure, slot.last_used, slot.fresh = None, state.now, True
    state.fresh.append(slot.spec.id)
    slot.keep_until = state.now + min(state.machine.min_residency_s, RESIDENCY_LOADS * took)
    if slot.lease is None:
        _join_lines(state, slot)
    move(state, slot, "ready", "it answers")


def _join_lines(state: State, slot: Slot) -> None:
    """It came up for everybody: who has a lease need not wait apart."""
    for lease, each in tuple(state.lines.get(slot.spec.id, {}).items()):
        if lease is not None:
            for waiting in each.members(state.queued):
                each.leave()
                waiting.lease = None
                line(state, slot.spec.id, None).add(waiting, state.machine.max_overtakes)


# down


def stop(state: State, slot: Slot, cause: str) -> None:
    """An orderly end: nothing is in flight, and nothing else moves on its GPUs."""
    slot.life += 1
    proof.end(state, slot.spec.id)
    slot.bounds_mib = proof.own_bounds(state, slot)
    slot.base_mib = NOTHING
    move(state, slot, "stop", cause)
    state.out.append(ev.Stop(slot.spec.id))


def sleep(state: State, slot: Slot, cause: str) -> None:
    """Let it sleep; until it does, what it keeps in host memory counts too."""
    spec = slot.spec
    claim(state, slot, slot.held, max(slot.held_host, spec.asleep_host_mib), slot.held_count)
    move(state, slot, "sleep", cause)
    state.out.append(ev.Sleep(spec.id, spec.sleep_level))


def retire(state: State, slot: Slot, cause: str) -> None:
    """It was idle long enough: sleep where it can, else stop."""
    if slot.residency == "ready" and can_sleep(state, slot) and not slot.dismissed and not slot.removed:
        sleep(state, slot, cause)
    else:
        stop(state, slot, cause)


def _end_of_life(state: State, slot: Slot, reason: str) -> None:
    """A life failed: stop what may be left of it before the memory counts as free."""
    slot.life += 1
    proof.end(state, slot.spec.id)
    slot.failure, slot.base_mib, slot.bounds_mib, slot.fresh = reason, NOTHING, {}, False
    move(state, slot, "stop", reason)
    state.out.append(ev.Stop(slot.spec.id))


def _fail(state: State, slot: Slot, reason: str, *, free: int) -> None:
    """Count a failure and let the model rest; the first `free` ones since a served request cost no time."""
    slot.failures += 1
    slot.fatal = slot.failures >= FATAL_AFTER
    counted = slot.failures - free
    rest_s = FATAL_S if slot.fatal else backoff_s(counted) if counted > 0 else 0.0
    slot.retry_at = state.now + rest_s
    _end_of_life(state, slot, reason)
    if rest_s:
        turn_away(state, slot, "start_failed")
        if slot.fatal or slot.spec.resident:
            state.timers.set("retry", slot.spec.id, slot.retry_at)


def start_failed(state: State, event: ev.StartFailed) -> None:
    """It did not become ready."""
    slot = state.slots.get(event.model)
    if slot is None or slot.residency != "starting":
        return
    if event.again and not slot.retried:
        slot.retried = True
        _end_of_life(state, slot, event.reason)
    else:
        _fail(state, slot, event.reason, free=0)


def died(state: State, event: ev.Died) -> None:
    """Its process is gone, or it does not serve any more. The first time it is healed at once."""
    slot = state.slots.get(event.model)
    if slot is None or not slot.spec.managed:
        return
    if slot.residency == "starting":
        start_failed(state, ev.StartFailed(event.model, event.reason))
    elif slot.residency in ("ready", "sleeping", "asleep", "waking"):
        _fail(state, slot, event.reason, free=1)


def slept(state: State, event: ev.Slept) -> None:
    """It sleeps; only the rest of its memory counts once a reading shows the other part free."""
    slot = state.slots.get(event.model)
    if slot is None or slot.residency != "sleeping" or event.model in state.proofs:
        return
    if proof.begin(state, event.model, slot.held, {}, slot.spec.asleep_mib):
        asleep(state, slot)


def asleep(state: State, slot: Slot) -> None:
    """Its memory is back but for what it keeps."""
    proof.end(state, slot.spec.id)
    claim(state, slot, slot.spec.asleep_mib, slot.spec.asleep_host_mib, 0)
    move(state, slot, "asleep", "it sleeps")
    if unloadable(state, slot.spec.id) is not None:
        turn_away(state, slot, "cannot_be_loaded")


def sleep_failed(state: State, event: ev.SleepFailed) -> None:
    """It did not fall asleep well: it is stopped instead, and after two such failures always."""
    slot = state.slots.get(event.model)
    if slot is not None and slot.residency == "sleeping":
        slot.sleep_failures += 1
        stop(state, slot, f"it did not fall asleep: {event.reason}")


def wake_failed(state: State, event: ev.WakeFailed) -> None:
    """It did not wake well: stopped and started instead."""
    slot = state.slots.get(event.model)
    if slot is not None and slot.residency == "waking":
        slot.sleep_failures += 1
        _fail(state, slot, event.reason, free=1)


# gone


def stopped(state: State, event: ev.Stopped) -> None:
    """Its process tree is gone; its memory is free once that is seen."""
    slot = state.slots.get(event.model)
    if slot is None or slot.residency not in ("stopping", "quarantined") or slot.spec.id in state.proofs:
        return
    _no_more_stops(state, slot)
    if slot.residency == "stopping":
        move(state, slot, "gone", "its processes are gone")
    else:
        slot.bounds_mib = {}  # others may have come since it was to go
    if proof.begin(state, slot.spec.id, slot.held, slot.bounds_mib):
        free(state, slot, "nothing is left")


def free(state: State, slot: Slot, cause: str) -> None:
    """Its memory is back."""
    name = slot.spec.id
    proof.end(state, name)
    _no_more_stops(state, slot)
    claim(state, slot, NOTHING, 0, 0)
    if slot.lease is not None:
        state.holds[slot.lease].models.discard(name)
        slot.lease = None
    slot.tokens, slot.pids, slot.bounds_mib = NOTHING, (), {}
    move(state, slot, "free after failure" if slot.failure else "free", cause)
    state.leaving.pop(name, None)
    slot.outdated = False
    if slot.next_spec is not None:
        respec(state, slot, slot.next_spec)
        know(state)
        show(state, slot)
    if unloadable(state, name) is not None:
        turn_away(state, slot, "cannot_be_loaded")
    if slot.removed and not slot.inflight:
        forget(state, slot)
    elif slot.spec.resident and not slot.dismissed and not slot.removed:
        state.absent[name] = None


def _no_more_stops(state: State, slot: Slot) -> None:
    slot.stop_again_at, slot.stop_failures = None, 0
    state.timers.cancel("stop", slot.spec.id)


def stop_failed(state: State, event: ev.StopFailed) -> None:
    """It could not be stopped and still holds its memory: again, and quarantined when it does not help."""
    slot = state.slots.get(event.model)
    if slot is None or slot.residency not in ("stopping", "quarantined") or slot.spec.id in state.proofs:
        return
    slot.stop_failures += 1
    if slot.residency == "stopping" and slot.stop_failures >= STOP_FAILURES:
        quarantine(state, slot, event.pids, f"it cannot be stopped: {event.reason}")
    elif event.pids:
        slot.pids = event.pids
    slot.stop_again_at = state.now + (STOP_AGAIN_S if slot.residency == "stopping" else QUARANTINE_S)
    state.timers.set("stop", slot.spec.id, slot.stop_again_at)


def stop_again(state: State, name: str) -> None:
    """The moment for another try."""
    slot = state.slots.get(name)
    if slot is None:
        return
    slot.stop_again_at = None
    if slot.residency in ("stopping", "quarantined"):
        state.out.append(ev.Stop(slot.spec.id))


def quarantine(state: State, slot: Slot, pids: tuple[int, ...], cause: str) -> None:
    """Its memory is not back in time: it goes on counting, and nobody waits for this model any more."""
    slot.pids = pids
    if slot.residency == "quarantined":
        return
    move(state, slot, "not back", cause)
    turn_away(state, slot, "model_resting")


def unload(state: State, event: ev.Unload) -> None:
    """A person wants it gone as soon as it is idle; that also ends a rest for good."""
    slot = state.slots.get(event.model)
    if slot is None or not slot.spec.managed:
        return
    slot.dismissed = True
    if slot.fatal:
        slot.fatal, slot.failures, slot.retry_at = False, 0, state.now
        state.timers.cancel("retry", event.model)
    state.absent.pop(event.model, None)
    state.wishes.pop(event.model, None)
    if slot.residency not in DOWN:
        state.leaving[event.model] = None
        state.dirty = True


def retry(state: State, name: str) -> None:
    """A rest is over: a fatal model gets one more try."""
    slot = state.slots.get(name)
    if slot is None:
        return
    if slot.fatal:
        slot.fatal, slot.failures = False, FATAL_AFTER - 1
    state.dirty = True


def grace_over(state: State, name: str) -> None:
    """It was idle for its grace, or used meanwhile: then the moment is a later one."""
    slot = state.slots.get(name)
    if slot is None:
        return
    if slot.residency != "ready" or slot.inflight or slot.spec.kept:
        return
    due = slot.last_used + slot.spec.grace_s
    if due > state.now:
        state.timers.set("grace", slot.spec.id, due)
    else:
        state.leaving[slot.spec.id] = None
        state.dirty = True


def serve_first(state: State, slot: Slot) -> None:
    """Its first requests after it came up."""
    serve(state, slot)
    slot.fresh = False
    if not slot.inflight:
        rest(state, slot)
        state.dirty = True


def lose(state: State, slots: list[Slot], reason: str) -> None:
    """A GPU of theirs is lost: they fail, and whoever waits for them goes elsewhere."""
    for slot in slots:
        slot.retry_at = math.inf
        state.absent.pop(slot.spec.id, None)
        if slot.residency in ("starting", "ready", "sleeping", "asleep", "waking"):
            slot.failures += 1
            _end_of_life(state, slot, reason)
        elif slot.residency in DOWN:
            slot.failure = reason
    for slot in slots:
        turn_away(state, slot, "cannot_be_loaded")
