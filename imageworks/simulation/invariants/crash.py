"""Invariants about kill -9 and what is written down: I21, I22, I23, I24, I25.

Owns the checkers that look at how a life of the manager begins. They are about the shell and the store, which are
modelled here: what the real ones do is tested with real processes and a real disk.
"""

from __future__ import annotations

from typing import Any

from imageworks.runtime import events as ev
from imageworks.simulation.book import Book
from imageworks.simulation.holdings import FREE
from imageworks.simulation.invariants.registry import invariant


@invariant(
    21, "nothing is granted before the new life has looked around", "core", ev.Start, ev.Wake, ev.Grant, ev.LeaseGranted
)
def nothing_before_adoption(book: Book, effect: Any) -> str | None:
    return None if book.adopted else f"{effect} before Adopt"


@invariant(21, "after a restart everything that runs is accounted for", "core and shell", ev.Adopt)
def superset_of_the_running(book: Book, event: ev.Adopt) -> str | None:
    for model, program in book.programs.of.items():
        if program.phase in ("starting", "ready", "asleep") and program.spec.managed and model in book.machine.specs:
            slot = book.state.slots[model]
            if slot.residency in FREE:
                return f"{model} is {program.phase}, the new life counts it as {slot.residency}"
    missing = [lease.id for lease in event.leases if lease.id not in book.state.leases]
    return f"lease {missing[0]} was saved and is forgotten" if missing else None


@invariant(22, "the file is an old version or a new one, never half of one", "store", ev.Adopt)
def never_torn(book: Book, event: ev.Adopt) -> str | None:
    if book.saved is None:
        return None
    found = {lease.id: lease for lease in event.leases}
    for lease, tokens in book.told.items():
        if lease not in found:
            return f"{lease} was granted and told, and is not in the file"
        if max(found[lease].tokens.values()) < max(tokens.values()):
            return f"{lease} was told with tokens {tokens}, the file says {dict(found[lease].tokens)}"
    return None


@invariant(22, "without a readable file nothing is guessed", "store", ev.Adopt)
def starts_closed(book: Book, event: ev.Adopt) -> str | None:
    if book.saved is not None:
        return None
    low = [slot for slot, uuid in book.scenario.machine.uuids.items() if event.tokens.get(slot, 0) < book.tokens[uuid]]
    if event.leases:
        return f"{event.leases[0].id} came from a file that cannot be read"
    return f"tokens of slot {low[0]} begin again below what was given" if low else None


@invariant(23, "what runs without being known is adopted or swept", "shell", ev.Adopt)
def nothing_ignored(book: Book, event: ev.Adopt) -> str | None:
    for model, program in book.programs.of.items():
        runs = program.phase in ("starting", "ready", "asleep") and program.spec.managed
        if runs and model in book.machine.specs and model not in event.observed:
            return f"{model} is {program.phase}, and nobody looked"
    return None


@invariant(24, "one manager lives at a time", "shell", ev.Adopt)
def one_manager(book: Book, _event: ev.Adopt) -> str | None:
    return None if book.managers == 1 else f"{book.managers} managers live"


@invariant(25, "reading what was written twice gives the same", "store", ev.Adopt)
def replay_is_idempotent(book: Book, event: ev.Adopt) -> str | None:
    if book.saved is None:
        return None
    ids = [lease.id for lease in event.leases]
    if len(set(ids)) != len(ids) or any(lease.id in book.forgotten for lease in event.leases):
        return f"the file gives leases {ids}, of which {sorted(book.forgotten)} are over"
    return None if book.reread() == book.saved else "a second reading of the file gives something else"
