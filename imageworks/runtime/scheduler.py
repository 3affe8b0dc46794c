"""Who may use which model and which memory now: a pure `step(state, event, now) -> (state, effects)`.

The law: a request waits until its model is up and has a free place, is granted once or refused once, and leaves by
Finish or Cancel. A model comes up for its oldest waiter when it fits beside everything that holds memory, also what
starts, stops and is not seen gone; where it does not fit, idle models go first, cheapest to bring back first, and never
one with a request in flight. Leases wait in the same order. On one GPU loads and unloads happen one after the other.
A waiter is passed at most `max_overtakes` times by later arrivals whose model is in its way. Nothing is granted or
started before `Adopt` said what runs already. `now` is a monotonic time in seconds. No clock, no I/O, no logging here.

`step` changes the state it is given and returns it; `state.copy()` makes an independent one. Owns the dispatch, the
timers, Adopt, Reload and Drain; the rest is in `serving`, `lives`, `asking`, `leasing`, `memory` and `placing`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from imageworks.runtime import asking, leasing, lives, memory, placing, serving
from imageworks.runtime import events as ev
from imageworks.runtime.canonical import key
from imageworks.runtime.changes import adopt, reload
from imageworks.runtime.lives import backoff_s
from imageworks.runtime.residency import Machine
from imageworks.runtime.snapshot import position, view
from imageworks.runtime.state import State, refuse
from imageworks.runtime.timers import Kind

__all__ = ["State", "backoff_s", "initial", "key", "next_deadline", "position", "step", "view"]


def initial(machine: Machine) -> State:
    """The state before anything is known."""
    return State(machine)


def step(state: State, event: ev.Event, now: float) -> tuple[State, tuple[ev.Effect, ...]]:
    """Apply one event to `state`, which is changed and returned.

    Raises ValueError for an event that cannot be (a bug of the caller). A `now` before the last one counts as that.
    """
    state.now = now = max(now, state.now)
    out: list[ev.Effect] = []
    state.out = out
    timers = state.timers
    if timers.heap and timers.heap[0][0] <= now:
        _pass_time(state)
    HANDLERS[event.__class__](state, event)
    if state.dirty:
        placing.settle(state)
    if timers.heap and timers.heap[0][0] <= now:
        _pass_time(state)  # who came just now and does not wait
    if isinstance(event, ev.Acquire):
        asking.announce(state, event.call)
    return state, tuple(out)


def _pass_time(state: State) -> None:
    """What fell due by now, before anything else happens."""
    while (due := state.timers.due(state.now)) is not None:
        MOMENTS[due[0]](state, due[1])
    placing.settle(state)


def next_deadline(state: State, now: float) -> float | None:
    """When a Tick is due: the next time after `now` at which waiting alone changes something."""
    time = state.timers.next()
    return None if time is None else max(time, now)


def drain(state: State, _event: ev.Drain) -> None:
    """The proxy is about to end: refuse who waits, start nothing. Leases stay."""
    state.draining = True
    for request in tuple(state.waiting):
        refuse(state, request, "shutting_down", "the proxy is stopping", 1.0)
    for call in tuple(state.by_call):
        asking.leave(state, call)
        asking.deny(state, call, "shutting_down", "the proxy is stopping", 1.0)


def tick(_state: State, _event: ev.Tick) -> None:
    """Nothing but the passing of time."""


def look_again(state: State, _name: str) -> None:
    """Somebody stayed as long as he was promised."""
    state.dirty = True


HANDLERS: Mapping[type[ev.Event], Callable[[State, Any], None]] = {
    ev.Arrive: serving.arrive,
    ev.Finish: serving.finish,
    ev.Cancel: serving.cancel,
    ev.Adopt: adopt,
    ev.Ready: lives.ready,
    ev.StartFailed: lives.start_failed,
    ev.Stopped: lives.stopped,
    ev.StopFailed: lives.stop_failed,
    ev.Slept: lives.slept,
    ev.SleepFailed: lives.sleep_failed,
    ev.WakeFailed: lives.wake_failed,
    ev.Died: lives.died,
    ev.Unload: lives.unload,
    ev.Measured: memory.measured,
    ev.Pardon: memory.pardon,
    ev.Acquire: asking.acquire,
    ev.Renew: leasing.renew,
    ev.Release: leasing.release,
    ev.ForceRelease: leasing.force_release,
    ev.Handover: leasing.handover,
    ev.HolderGone: leasing.holder_gone,
    ev.Reclaimed: leasing.reclaimed,
    ev.ReclaimFailed: leasing.reclaim_failed,
    ev.Unsaved: leasing.unsaved,
    ev.Withdraw: asking.withdraw,
    ev.Reload: reload,
    ev.Drain: drain,
    ev.Tick: tick,
}
MOMENTS: Mapping[Kind, Callable[[State, str], None]] = {
    "deadline": serving.expire,
    "ask": asking.expire,
    "grace": lives.grace_over,
    "residency": look_again,
    "retry": lives.retry,
    "stop": lives.stop_again,
    "ttl": leasing.ttl_over,
    "proof": memory.overdue,
    "reclaim": leasing.reclaim_again,
}
