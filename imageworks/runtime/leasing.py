"""Leases that were granted: how they live, and how their memory comes back.

Owns the events about live leases and the effects LeaseGranted, LeaseAnswered, LeaseEnded and Reclaim. All or
nothing over several GPUs; a lease that ended without its holder's word is only free when its processes and its bytes
are gone. Which GPUs it gets, and who makes room, is decided elsewhere (`placing`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from imageworks.runtime import events as ev
from imageworks.runtime import proof
from imageworks.runtime.asking import deny, unqueue
from imageworks.runtime.leases import Lease
from imageworks.runtime.serving import stale
from imageworks.runtime.state import Hold, State, claim_lease, refuse, show, stand
from imageworks.runtime.waiting import Asking

REMEMBERED = 1024
"""So many leases that ended are remembered, so that another release of them is no error."""
RECLAIM_AGAIN_S = 30.0


def give(state: State, asking: Asking, gpus: tuple[int, ...]) -> None:
    """The lease begins: it fits."""
    ask = asking.ask
    unqueue(state, asking)
    tokens = {gpu: state.gpus[gpu].next_token() for gpu in gpus}
    first = min(gpus)
    lease = Lease(
        f"lease-{first}-{tokens[first]}", ask, "active", tokens, {gpu: state.gpus[gpu].uuid for gpu in gpus},
        state.now + ask.ttl_s, asking.evicted,
    )  # fmt: skip
    hold(state, lease)
    _moved(state, lease, "free", f"asked for by {ask.owner}")
    state.out.extend(ev.LeaseGranted(call, lease) for call in asking.calls)


def hold(state: State, lease: Lease) -> None:
    """Take a live lease into the books."""
    state.leases[lease.id] = lease
    state.holds[lease.id] = Hold(began=state.now)
    state.by_request[lease.ask.request] = lease.id
    for gpu in lease.tokens:
        book = state.gpus[gpu]
        book.leases.add(lease.id)
        book.calm = False
        if lease.ask.exclusive:
            book.exclusive = lease.id
        claim_lease(state, lease.id, gpu)
        proof.joined(state, lease.id, gpu, lease.ask.mib)
    if lease.state == "active":
        state.timers.set("ttl", lease.id, lease.expires)
    state.dirty = True


def renew(state: State, event: ev.Renew) -> None:
    """The holder lives."""
    if (lease := _held(state, event.call, event.lease, event.token)) is not None:
        _replace(state, lease, expires=state.now + lease.ask.ttl_s)
        state.out.append(ev.LeaseAnswered(event.call, state.leases[lease.id]))


def release(state: State, event: ev.Release) -> None:
    """The holder is done. Again is no error."""
    over = state.ended.get(event.lease) or state.leases.get(event.lease)
    if over is not None and over.state != "active" and over.token == event.token:
        state.out.append(ev.LeaseAnswered(event.call, over))
    elif (lease := _held(state, event.call, event.lease, event.token)) is not None:
        lease = _ending(state, lease, "released", f"released by {lease.ask.owner}")
        state.out.append(ev.LeaseAnswered(event.call, lease))
        _await_bytes(state, lease)


def force_release(state: State, event: ev.ForceRelease) -> None:
    """A person ends it."""
    lease = state.leases.get(event.lease)
    if lease is None:
        over = state.ended.get(event.lease)
        if over is not None:
            state.out.append(ev.LeaseAnswered(event.call, over))
        else:
            _unknown(state, event.call, event.lease)
        return
    if lease.state == "active":
        lost(state, lease, "forced", f"ended by {event.actor}")
    state.out.append(ev.LeaseAnswered(event.call, state.leases[lease.id]))


def handover(state: State, event: ev.Handover) -> None:
    """To another owner, who gets new tokens; or to a model, which is loaded into the freed memory next."""
    if (event.owner is None) == (event.model is None):
        return deny(state, event.call, "invalid", "a lease is handed over to an owner or to a model")
    if (lease := _held(state, event.call, event.lease, event.token)) is None:
        return None
    if event.owner is not None:
        tokens = {gpu: state.gpus[gpu].next_token() for gpu in lease.tokens}
        ask = replace(lease.ask, owner=event.owner, holder=None)
        _replace(state, lease, ask=ask, tokens=tokens, expires=state.now + ask.ttl_s)
        state.holds[lease.id].passed_on = True
        _moved(state, state.leases[lease.id], "active", f"handed over by {lease.ask.owner} to {event.owner}")
        _turn_stale(state, lease.id)
        state.out.append(ev.LeaseAnswered(event.call, state.leases[lease.id]))
        return None
    slot = state.slots.get(event.model or "")
    if slot is None or slot.removed or slot.spec.gpu_mib.keys().isdisjoint(lease.tokens):
        return deny(state, event.call, "invalid", f"`{event.model}` is no model that uses a GPU of this lease")
    lease = _ending(state, lease, "handed_over", f"handed over by {lease.ask.owner} to `{event.model}`")
    state.holds[lease.id].heir = event.model
    state.out.append(ev.LeaseAnswered(event.call, lease))
    _await_bytes(state, lease)
    return None


def _unknown(state: State, call: str, name: str) -> None:
    """Nobody knows the lease; before the books are taken over that says nothing yet."""
    if state.adopted:
        deny(state, call, "unknown_lease", f"there is no lease {name}")
    else:
        deny(state, call, "not_reconciled", "what was held is still being looked at", 1.0)


def _held(state: State, call: str, name: str, token: int) -> Lease | None:
    """The active lease of which this is the token; else the call is denied."""
    lease = state.leases.get(name)
    if lease is None and name not in state.ended:
        _unknown(state, call, name)
    elif lease is not None and token > lease.token:
        deny(state, call, "not_owner", f"this is no token of lease {name}")
    elif lease is None or (reason := stale(state, name, token)) is not None:
        deny(state, call, "stale_token", f"lease {name} is over" if lease is None else reason or "")
    else:
        return lease
    return None


# the end


def holder_gone(state: State, event: ev.HolderGone) -> None:
    """Its process ended without a word."""
    lease = state.leases.get(event.lease)
    if lease is not None and lease.state == "active":
        lost(state, lease, "holder_gone", "its holder is gone")


def ttl_over(state: State, name: str) -> None:
    """Nobody renewed it in time: it is lost, even if the holder comes back."""
    lease = state.leases[name]
    if lease.state == "active":
        lost(state, lease, "expired", "not renewed in time")


def lost(state: State, lease: Lease, cause: ev.EndCause, words: str) -> None:
    """It ends without its holder's word: what is left of the holder must be ended first."""
    _ending(state, lease, cause, words)
    state.out.append(ev.Reclaim(lease.id))


def resume(state: State, lease: Lease) -> None:
    """It was ending when the last life of the scheduler ended: what is left of the holder is ended again."""
    _replace(state, lease, state="reclaiming", pids=())
    state.holds[lease.id].cause = "holder_gone"
    _settle_motion(state, lease, moving=True)
    state.out.append(ev.Reclaim(lease.id))


def reclaim_again(state: State, name: str) -> None:
    """The moment for another try."""
    if name in state.leases:
        state.out.append(ev.Reclaim(name))


def reclaimed(state: State, event: ev.Reclaimed) -> None:
    """Nothing of its process tree is left."""
    lease = state.leases.get(event.lease)
    if lease is not None and lease.state in ("reclaiming", "quarantined") and lease.id not in state.proofs:
        state.timers.cancel("reclaim", lease.id)
        _await_bytes(state, lease)


def reclaim_failed(state: State, event: ev.ReclaimFailed) -> None:
    """Its processes do not end: quarantined, and tried again now and then."""
    lease = state.leases.get(event.lease)
    if lease is not None and lease.state in ("reclaiming", "quarantined") and lease.id not in state.proofs:
        if lease.state == "reclaiming":
            quarantine(state, lease, event.pids, f"its processes do not end: {event.reason}")
        state.timers.set("reclaim", lease.id, state.now + RECLAIM_AGAIN_S)


def unsaved(state: State, event: ev.Unsaved) -> None:
    """It could not be written down, so nobody was told of it. Whoever said so answers the call."""
    lease = state.leases.get(event.lease)
    if lease is not None and lease.state == "active" and state.holds[lease.id].passed_on:
        lost(state, lease, "unsaved", "its new owner could not be written down")  # the memory is in use since long
    elif lease is not None and lease.state == "active":
        _ending(state, lease, "unsaved", "it could not be written down")
        free(state, lease.id, "nobody used it")


def quarantine(state: State, lease: Lease, pids: tuple[int, ...], cause: str) -> None:
    """Its memory is not back: it goes on counting."""
    _replace(state, lease, state="quarantined", pids=pids)
    if lease.state == "quarantined":
        return
    _moved(state, state.leases[lease.id], "reclaiming", cause)
    _settle_motion(state, lease, moving=False)


def free(state: State, name: str, cause: str) -> None:
    """Its memory is back: who lives in it lives on as everybody else, who went for it may come back."""
    lease, held = state.leases[name], state.holds[name]
    proof.end(state, name)
    for kind in ("ttl", "reclaim"):
        state.timers.cancel(kind, name)
    _settle_motion(state, lease, moving=False)
    for gpu in lease.tokens:
        book = state.gpus[gpu]
        book.claim(name, 0)
        book.unbinding.pop(name, None)
        book.leases.discard(name)
        if book.exclusive == name:
            book.exclusive = next((other for other in sorted(book.leases) if state.leases[other].ask.exclusive), None)
    _let_out(state, held)
    del state.leases[name], state.holds[name]
    if state.by_request.get(lease.ask.request) == name:
        del state.by_request[lease.ask.request]
    _remember(state, replace(lease, state="free", pids=()))
    spent = state.now - held.began
    state.hold_s = spent if state.hold_s is None else 0.7 * state.hold_s + 0.3 * spent
    if held.heir is not None:
        state.heirs[held.heir] = None
    else:
        state.wishes |= dict.fromkeys(lease.restore)
    state.out.append(ev.Moved(name, "lease", lease.state, "free", cause, lease.tokens))
    state.out.append(ev.LeaseEnded(name, held.cause))
    state.dirty = True


def _let_out(state: State, held: Hold) -> None:
    """Models that live in it hold their memory in their own name from now."""
    for name in sorted(held.models):
        slot = state.slots[name]
        slot.lease = None
        for gpu, mib in slot.held.items():
            state.gpus[gpu].claim(name, mib)
        stand(state, slot)
        show(state, slot)
        if slot.residency == "ready" and not slot.fresh:
            slot.fresh = True
            state.fresh.append(name)


def _ending(state: State, lease: Lease, cause: ev.EndCause, words: str) -> Lease:
    """It is over for its holder: no token of it is good any more."""
    state.holds[lease.id].cause = cause
    state.timers.cancel("ttl", lease.id)
    _replace(state, lease, state="reclaiming")
    lease = state.leases[lease.id]
    _moved(state, lease, "active", words)
    _settle_motion(state, lease, moving=True)
    _turn_stale(state, lease.id)
    return lease


def _await_bytes(state: State, lease: Lease) -> None:
    if proof.begin(state, lease.id, lease.tokens, {}):
        free(state, lease.id, "nothing is left")


def _turn_stale(state: State, name: str) -> None:
    """Requests that wait under it are refused."""
    for request in [waiting.request for waiting in state.waiting.values() if waiting.lease == name]:
        refuse(state, request, "stale_token", f"lease {name} is over", None)


def _settle_motion(state: State, lease: Lease, *, moving: bool) -> None:
    for gpu in lease.tokens:
        if moving and not state.machine.observe:
            state.gpus[gpu].moving.add(lease.id)
        else:
            state.gpus[gpu].moving.discard(lease.id)
    state.dirty = True


def _replace(book: State, lease: Lease, **changes: Any) -> None:
    new = book.leases[lease.id] = replace(lease, **changes)
    if new.state == "active":
        book.timers.set("ttl", new.id, new.expires)


def _remember(state: State, lease: Lease) -> None:
    state.ended[lease.id] = lease
    if len(state.ended) > REMEMBERED:
        del state.ended[next(iter(state.ended))]


def _moved(state: State, lease: Lease, before: str, cause: str) -> None:
    state.out.append(ev.Moved(lease.id, "lease", before, lease.state, cause, lease.tokens))
    state.dirty = True
