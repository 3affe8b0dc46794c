"""Invariant I29: the transition log tells the whole story, in order.

Owns the checkers that hold each logged transition against the one before and against the scheduler's state.
"""

from __future__ import annotations

from imageworks.runtime import events as ev
from imageworks.runtime.residency import LAW
from imageworks.simulation.book import Book
from imageworks.simulation.invariants.registry import invariant

STEPS = frozenset((before, after) for (before, _), after in LAW.items())


@invariant(29, "each logged transition begins where the last one ended, and is one the law knows", "core", ev.Moved)
def unbroken_log(book: Book, effect: ev.Moved) -> str | None:
    broken = book.broken_moves.get(effect.subject)
    if broken is not None:
        return f"{effect.subject} was {broken}, the log says {effect.before} -> {effect.after}"
    if not effect.cause:
        return f"{effect.subject}: {effect.before} -> {effect.after} without a cause"
    if effect.kind == "model" and not isinstance(book.event, ev.Adopt) and (effect.before, effect.after) not in STEPS:
        return f"{effect.subject}: the law knows no way from {effect.before} to {effect.after}"
    return None


@invariant(29, "the log and the state say the same", "core", ev.Moved)
def log_is_state(book: Book, effect: ev.Moved) -> str | None:
    subject = effect.subject
    if effect.kind == "model":
        slot = book.state.slots.get(subject)
        if slot is not None and slot.residency != book.models[subject]:
            return f"the log says {subject} is {book.models[subject]}, the state says {slot.residency}"
        return None
    held = book.state.leases.get(subject)
    known = book.leases.get(subject)
    if held is not None and known is not None and held.state != known.state:
        return f"the log says {subject} is {known.state}, the state says {held.state}"
    return None
