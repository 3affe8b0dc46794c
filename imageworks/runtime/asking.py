"""Calls for leases: what may be asked, who waits, and who asked the same before.

Owns the events Acquire and Withdraw, the deadlines of calls and the order among them. The same request id is the same
lease, or the same place in the queue. What comes from outside is checked here: each call gets exactly one answer.
"""

from __future__ import annotations

import math
from dataclasses import replace

from imageworks.runtime import events as ev
from imageworks.runtime.leases import LeaseAsk
from imageworks.runtime.state import State, delist, enlist
from imageworks.runtime.waiting import Asking

TTL_MAX_S = 86_400.0
PRIORITY_MAX = 1_000_000


def acquire(state: State, event: ev.Acquire) -> None:
    """A call for a lease: queued for the next placing, or denied at once."""
    ask, call = event.ask, event.call
    if state.draining:
        return deny(state, call, "shutting_down", "the proxy is stopping", 1.0)
    if (complaint := _invalid(state, ask)) is not None:
        return deny(state, call, "invalid", complaint)
    known = state.by_request.get(ask.request)
    if known is not None:
        return _again(state, event, known)
    if (trouble := _impossible(state, ask)) is not None:
        return deny(state, call, *trouble)
    if len(state.by_call) >= state.machine.queue:
        return deny(state, call, "busy", f"{state.machine.queue} calls are waiting already", 1.0)
    state.seq += 1
    asking = Asking((call,), ask, event.deadline, state.seq)
    state.queued[asking.seq] = asking
    state.by_call[call] = state.by_request[ask.request] = asking.seq
    state.timers.set("ask", call, event.deadline)
    enlist(state, (asking,), ask.gpus or state.gpus)
    state.asks.put(str(asking.seq), asking.key)
    state.dirty = True
    return None


def _again(state: State, event: ev.Acquire, known: int | str) -> None:
    """The same request once more: the same lease, or the same place in the queue."""
    call = event.call
    if isinstance(known, str):
        lease = state.leases[known]
        if replace(lease.ask, holder=event.ask.holder) != event.ask:
            return deny(state, call, "invalid", "this request id was used for another lease")
        if lease.state != "active":
            return deny(state, call, "busy", f"lease {lease.id} of this request is ending", 1.0)
        state.out.append(ev.LeaseGranted(call, lease))
        return None
    asking = ask_of(state, known)
    if replace(asking.ask, holder=event.ask.holder) != event.ask:
        return deny(state, call, "invalid", "this request id was used for another lease")
    asking.calls = (*asking.calls, call)
    state.by_call[call] = known
    state.timers.set("ask", call, event.deadline)
    return None


def _invalid(state: State, ask: LeaseAsk) -> str | None:
    """What is wrong with the numbers; they come from outside."""
    if not _whole(ask.mib, 1):
        return f"mib={ask.mib} is no positive whole number"
    if not _whole(ask.count, 1):
        return f"count={ask.count} is no positive whole number"
    if unknown := [gpu for gpu in ask.gpus if gpu not in state.gpus]:
        return f"there is no GPU {', '.join(map(str, unknown))}; there is: {', '.join(map(str, state.gpus)) or 'none'}"
    if len(set(ask.gpus)) != len(ask.gpus) or (ask.gpus and ask.count not in (1, len(ask.gpus))):
        return "gpus must be different ones, and as many as count"
    if not _finite(ask.ttl_s) or not 0 < ask.ttl_s <= TTL_MAX_S:
        return f"ttl_s={ask.ttl_s} is not between 0 and {TTL_MAX_S:.0f}"
    if not _whole(ask.priority, -PRIORITY_MAX) or ask.priority > PRIORITY_MAX:
        return f"priority={ask.priority} is no whole number between {-PRIORITY_MAX} and {PRIORITY_MAX}"
    return None if ask.request and ask.owner else "a lease needs a request id and an owner"


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _impossible(state: State, ask: LeaseAsk) -> tuple[ev.DenyCode, str] | None:
    """Why no waiting would help."""
    if not state.gpus:
        return "impossible", "the profile in force has no GPU, so there is nothing to lease"
    gpus = ask.gpus or tuple(state.gpus)
    alive = [gpu for gpu in gpus if not state.gpus[gpu].lost]
    wanted = len(ask.gpus) or ask.count
    if len(alive) < wanted <= len(gpus):
        return "gpu_lost", f"{wanted} GPUs are asked for, {len(alive)} are left"
    large = [gpu for gpu in alive if ask.mib <= _most(state, gpu, ask)]
    if len(large) >= wanted:
        return None
    most = max((_most(state, gpu, ask) for gpu in alive), default=0)
    return (
        "impossible",
        f"{ask.mib} MiB on {wanted} of {len(gpus)} GPUs are asked for; the most that one can give is {most}",
    )


def _most(state: State, gpu: int, ask: LeaseAsk) -> int:
    """The most that a lease could ever get there: kept models make room for an exclusive one only."""
    budget = state.gpus[gpu].budget_mib
    return budget if ask.exclusive else budget - sum(spec.gpu_mib.get(gpu, 0) for spec in state.pinned)


def withdraw(state: State, event: ev.Withdraw) -> None:
    """The client of a waiting call is gone. One that is not known any more is no error."""
    seq = state.by_call.get(event.call)
    if seq is not None:
        leave(state, event.call)


def leave(state: State, call: str) -> Asking:
    """One call waits no more; the last one of an ask takes the ask along, and who went for it comes back."""
    asking = ask_of(state, state.by_call.pop(call))
    state.timers.cancel("ask", call)
    asking.calls = tuple(other for other in asking.calls if other != call)
    if not asking.calls:
        unqueue(state, asking)
        state.wishes |= dict.fromkeys(asking.evicted)
    return asking


def ask_of(state: State, seq: int) -> Asking:
    """The waiting ask of this age."""
    asking = state.queued[seq]
    if not isinstance(asking, Asking):
        raise TypeError(f"no ask: {seq}")
    return asking


def unqueue(state: State, asking: Asking) -> None:
    """It does not wait any more."""
    del state.queued[asking.seq]
    state.by_request.pop(asking.ask.request, None)
    for call in asking.calls:
        state.by_call.pop(call, None)
        state.timers.cancel("ask", call)
    delist(state, asking)
    state.asks.drop(str(asking.seq))
    state.dirty = True


def expire(state: State, call: str) -> None:
    """A call waited as long as it may."""
    asking = leave(state, call)
    if not state.adopted:
        deny(state, call, "not_reconciled", "what runs is still being looked at", 1.0)
    else:
        deny(state, call, "busy", _who_holds(state, asking.ask), estimate_s(state, asking) or 5.0)


def _who_holds(state: State, ask: LeaseAsk) -> str:
    said = []
    for gpu in ask.gpus or state.gpus:
        book = state.gpus[gpu]
        who = ", ".join(f"{name} {mib} MiB" for name, mib in sorted(book.claims.items())) or "nobody"
        said.append(f"GPU {gpu}: {book.room(state.now)} of {book.budget_mib} MiB are free, held by {who}")
    return f"{ask.mib} MiB are asked for; " + "; ".join(said)


def announce(state: State, call: str) -> None:
    """Tell a new call that it has to wait, and where it stands."""
    if call in state.by_call:
        asking = ask_of(state, state.by_call[call])
        state.out.append(ev.LeaseQueued(call, ask_position(state, asking), estimate_s(state, asking)))


def deny_lost(state: State) -> None:
    """After a GPU was lost: who asks for more than what is left need not wait."""
    for asking in [entry for entry in state.queued.values() if isinstance(entry, Asking)]:
        asking.chosen = ()
        if (trouble := _impossible(state, asking.ask)) is not None:
            for call in asking.calls:
                leave(state, call)
                deny(state, call, *trouble)


def ask_position(state: State, asking: Asking) -> int:
    """1 is next."""
    key = asking.key
    return 1 + sum(other < key for other in state.asks.keys.values())


def estimate_s(state: State, asking: Asking) -> float | None:
    """When it may be its turn, from how long leases were held so far; None where nothing is known."""
    return None if state.hold_s is None else state.hold_s * ask_position(state, asking)


def deny(state: State, call: str, code: ev.DenyCode, reason: str, retry_after_s: float | None = None) -> None:
    """The call gets an error and changed nothing."""
    state.out.append(ev.LeaseDenied(call, code, reason, retry_after_s))
