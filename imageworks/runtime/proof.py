"""Proof that memory is back: a holder whose processes are gone goes on holding until a reading shows its bytes free.

Owns the opening of a proof, its check against every reading, and nothing else: what follows from it is decided by
whoever asked. Where a GPU was never read, the word of process control is all there is, and memory is free at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from imageworks.runtime.events import Reading
from imageworks.runtime.residency import Slot
from imageworks.runtime.state import NOTHING, Proof, State


def begin(
    state: State, holder: str, gpus: Iterable[int], bounds: dict[int, int], keeps: Mapping[int, int] = NOTHING
) -> bool:
    """Wait for the bytes of `holder`; True when there is nothing to wait for.

    `bounds` maps GPU -> use in MiB that proves it whatever others claim, where the holder's own use is known; `keeps` is
    what the holder may go on using.
    """
    missing = {gpu for gpu in gpus if state.gpus[gpu].measured and not state.gpus[gpu].lost}
    if not missing:
        return True
    state.proofs[holder] = Proof(missing, {gpu: state.gpus[gpu].foreign_mib for gpu in missing}, bounds, keeps)
    state.timers.set("proof", holder, state.now + state.machine.reclaim_s)
    return False


def end(state: State, holder: str) -> None:
    """It is settled, one way or the other."""
    state.proofs.pop(holder, None)
    state.timers.cancel("proof", holder)


def proven(state: State, gpu: int, reading: Reading) -> list[str]:
    """Holders whose last missing bytes this reading shows. While somebody loads there, his claim is not what he uses."""
    done: list[str] = []
    if state.gpus[gpu].rising_mib:
        return done
    for holder, proof in state.proofs.items():
        if gpu in proof.missing and _shown(state, holder, proof, gpu, reading):
            proof.missing.discard(gpu)
            if not proof.missing:
                done.append(holder)
    return done


def _shown(state: State, holder: str, proof: Proof, gpu: int, reading: Reading) -> bool:
    """At most what the others may hold, and what was not ours before, is in use; who was shown gone here holds nothing."""
    book = state.gpus[gpu]
    shown = sum(_claim(state, other, gpu) for other, each in state.proofs.items() if gpu not in each.missing)
    unseen = sum(_unseen(state, other, gpu) for other in proof.newcomers)
    others = book.claimed_mib - shown - unseen - _claim(state, holder, gpu)
    foreign = proof.foreign.get(gpu, 0)
    if reading.foreign_mib is not None:
        foreign = min(foreign, reading.foreign_mib)
    allowed = others + foreign + state.machine.tolerance_mib
    strict = proof.bounds.get(gpu)
    return reading.used_mib <= (allowed if strict is None else min(allowed, strict))


def _unseen(state: State, holder: str, gpu: int) -> int:
    """What a newcomer claims and need not use: all of it, but for a model that is up."""
    slot = state.slots.get(holder)
    up = slot is not None and slot.residency in ("ready", "asleep")
    return 0 if up else state.gpus[gpu].claims.get(holder, 0)


def _claim(state: State, holder: str, gpu: int) -> int:
    """What it gives back: not what a model keeps asleep, and not the models that live in a lease, which stay."""
    slot = state.slots.get(holder)
    if slot is not None:
        return slot.held.get(gpu, 0) - state.proofs[holder].keeps.get(gpu, 0)
    return state.gpus[gpu].claims.get(holder, 0) - state.holds[holder].inner.get(gpu, 0)


def own_bounds(state: State, slot: Slot) -> dict[int, int]:
    """Before an orderly stop: what is in use now less what this model is known to use, and an eighth of that as slack.

    Only where nobody can have grown unseen: nobody moved since that reading, and there is no lease on the GPU. And only
    where all that is known to be there is in the reading: who died unnoticed, perhaps this model, is not in it any more.
    """
    bounds = {}
    for gpu, own in slot.own_mib.items() if slot.residency == "ready" else ():
        book = state.gpus[gpu]
        if book.reading is not None and book.calm and not book.closed(state.now):
            slack = max(state.machine.tolerance_mib, own // 8)
            known = sum(_known(state, name, gpu) for name in book.claims)
            if book.reading.used_mib + slack >= known:
                bounds[gpu] = max(0, book.reading.used_mib - own) + slack
    return bounds


def _known(state: State, holder: str, gpu: int) -> int:
    """What a model that is up was seen to use there."""
    slot = state.slots.get(holder)
    return slot.own_mib.get(gpu, 0) if slot is not None and slot.residency == "ready" else 0


def joined(state: State, holder: str, gpu: int, mib: int) -> None:
    """Somebody new begins to use a GPU while bytes are still missing there."""
    for proof in state.proofs.values():
        if gpu in proof.missing:
            proof.newcomers.add(holder)
            if gpu in proof.bounds:
                proof.bounds[gpu] += mib


def learn(state: State, gpu: int, reading: Reading) -> None:
    """The first reading after a model came up tells what it uses itself, if nobody else moved."""
    book = state.gpus[gpu]
    if book.moving or book.leases:
        return
    for name in book.claims:
        slot = state.slots[name]
        if slot.residency == "ready" and gpu in slot.base_mib:
            grown = reading.used_mib - slot.base_mib[gpu]
            slot.base_mib = {other: mib for other, mib in slot.base_mib.items() if other != gpu}
            if grown > 0:
                slot.own_mib = {**slot.own_mib, gpu: min(grown, slot.held.get(gpu, 0))}
