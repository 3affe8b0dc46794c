"""What readings of the GPUs change: proofs, lost cards, quarantines.

Owns the events Measured and Pardon, and the moment at which a proof was waited for long enough.
"""

from __future__ import annotations

from imageworks.runtime import asking, leasing, lives, proof
from imageworks.runtime import events as ev
from imageworks.runtime.state import State


def measured(state: State, event: ev.Measured) -> None:
    """One look at the GPUs."""
    for gpu in event.lost:
        if gpu in state.gpus and not state.gpus[gpu].lost:
            _lose(state, gpu)
    for gpu, reading in event.readings.items():
        book = state.gpus.get(gpu)
        if book is None or book.lost:
            continue
        before, unused = book.room(state.now), book.unused()
        book.look(reading, state.now)
        if reading is not None:
            for holder in proof.proven(state, gpu, reading):
                _free(state, holder, "its memory is seen free")
            proof.learn(state, gpu, reading)
        if book.room(state.now) > before or (book.leases and (book.unused() or 0) > (unused or 0)):
            state.dirty = True  # in a lease a model comes up when its holder uses less


def _free(state: State, holder: str, cause: str) -> None:
    slot = state.slots.get(holder)
    if slot is not None and slot.residency == "sleeping":
        lives.asleep(state, slot)
    elif slot is not None:
        lives.free(state, slot, cause)
    else:
        leasing.free(state, holder, cause)


def _lose(state: State, gpu: int) -> None:
    """The card is gone: who lives there fails, who waits for it is told, nothing is granted there any more."""
    book = state.gpus[gpu]
    book.lost = True
    for name in sorted(book.leases):
        lease = state.leases[name]
        if lease.state == "active":
            leasing.lost(state, lease, "gpu_lost", f"GPU {gpu} is lost")
    lives.lose(state, [slot for slot in state.slots.values() if gpu in slot.spec.gpu_mib], f"GPU {gpu} is lost")
    for holder in [name for name, each in state.proofs.items() if gpu in each.missing]:
        state.proofs[holder].missing.discard(gpu)
        if not state.proofs[holder].missing:
            _free(state, holder, f"GPU {gpu} is lost")
    asking.deny_lost(state)


def overdue(state: State, holder: str) -> None:
    """The bytes did not come back in time: quarantined, with the pids that hold them; a later reading may still free it."""
    waited = state.proofs.get(holder)
    if waited is None:
        return
    pids: set[int] = set()
    for gpu in waited.missing:
        reading = state.gpus[gpu].reading
        pids.update(reading.pids if reading is not None else ())
    cause = f"its memory is not back after {state.machine.reclaim_s:.0f} s"
    slot = state.slots.get(holder)
    if slot is not None and slot.residency == "sleeping":
        lives.sleep_failed(state, ev.SleepFailed(holder, cause))
    elif slot is not None:
        lives.quarantine(state, slot, tuple(sorted(pids)), cause)
    else:
        leasing.quarantine(state, state.leases[holder], tuple(sorted(pids)), cause)


def pardon(state: State, event: ev.Pardon) -> None:
    """A person says that it is free. Only what is quarantined can be pardoned."""
    slot, lease = state.slots.get(event.holder), state.leases.get(event.holder)
    stuck = slot.residency if slot is not None else lease.state if lease is not None else None
    if stuck == "quarantined":
        _free(state, event.holder, f"pardoned by {event.actor}")
        for book in state.gpus.values():
            book.reckon()  # what is still in use there is nobody's now
