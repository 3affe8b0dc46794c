"""Invariants about GPU memory: I1, I2, I7, I8, I9, I12, I14, I15, I30.

Owns the checkers that compare grants with the observer's claims, the last readings and the true cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imageworks.runtime import events as ev
from imageworks.simulation.book import Book
from imageworks.simulation.cards import NOISE_MIB
from imageworks.simulation.holdings import FREE
from imageworks.simulation.invariants.registry import EVERY, invariant
from imageworks.simulation.scenario import TOLERANCE_MIB

STALE_READING_S = 15.0
SLACK_MIB = TOLERANCE_MIB + 2 * NOISE_MIB
"""The scheduler's own tolerance, and the noise of two readings: this one, and the one that told what was a stranger's before."""
GROWING = frozenset({"starting", "waking"})
SHRINKING = frozenset({"stopping", "sleeping", "reclaiming"})
GRANTS = (ev.Start, ev.Wake, ev.LeaseGranted)


def _wanted(book: Book, effect: Any) -> dict[int, int]:
    """MiB per slot that the effect gives away."""
    if isinstance(effect, ev.LeaseGranted):
        return dict.fromkeys(effect.lease.tokens, effect.lease.ask.mib)
    return dict(book.scenario.machine.specs[effect.model].gpu_mib)


def _is_new(book: Book, effect: Any) -> bool:
    """A lease that is granted again as it is gives nothing away."""
    return not isinstance(effect, ev.LeaseGranted) or book.leases[effect.lease.id].renewed == book.now


@invariant(1, "the sum of all that is not proved free stays within each GPU's budget", "core", *GRANTS)
def within_budget(book: Book, effect: Any) -> str | None:
    if book.machine.observe:
        return None
    for slot in _wanted(book, effect):
        claimed = book.charged(slot)
        if claimed > book.machine.gpu_budget_mib[slot]:
            return (
                f"slot {slot}: {claimed} MiB claimed by {book.claims[slot]}, budget {book.machine.gpu_budget_mib[slot]}"
            )
    return None


@invariant(1, "no card runs out of memory while everybody keeps their word", "core", ev.Ready)
def never_overfull(book: Book, _event: ev.Ready) -> str | None:
    full = (
        [slot for slot in book.cards.overfull() if slot not in book.unseen]
        if len(book.readings) == len(book.machine.gpu_budget_mib) and not book.machine.observe
        else []
    )
    return f"slot {full[0]} holds {book.cards.held[full[0]]}" if full else None


@invariant(2, "an exclusive lease is the only holder on its GPUs", "core", *GRANTS)
def exclusive(book: Book, effect: Any) -> str | None:
    if book.machine.observe:
        return None
    for slot in _wanted(book, effect):
        claims = book.claims[slot]
        for holder in claims:
            lease = book.leases.get(holder)
            if lease is not None and lease.lease.ask.exclusive:
                others = [other for other in claims if other != holder and book.inside(other) != holder]
                if others:
                    return f"slot {slot} is exclusively {holder}'s, but {others[0]} is there too"
    return None


@invariant(
    7, "memory is free only when the tree is gone and its bytes are seen back, or a person said so", "core", ev.Moved
)
def proved_free(book: Book, effect: ev.Moved) -> str | None:
    subject = effect.subject
    if effect.after not in FREE or effect.before in FREE or _ungoverned(book, subject):
        return None
    tree_gone, pardoned, claimed = book.freed[subject]
    if pardoned:  # also if it comes up again in the same step
        return None
    if not tree_gone and subject not in book.let_go:
        return f"{subject} counts as free, but its tree was never seen gone"
    return _bytes_back(book, subject, claimed) if book.measured and not book.machine.observe else None


def _ungoverned(book: Book, subject: str) -> bool:
    """It is not ours to end, or its card is gone."""
    if subject in book.models:
        return not book.scenario.machine.specs[subject].managed or book.on_lost(subject)
    held = book.leases.get(subject) or book.ending.get(subject)
    return held is None or not book.lost.isdisjoint(held.lease.tokens)


def _bytes_back(book: Book, subject: str, claimed: Mapping[int, int]) -> str | None:
    """Measured: what is in use must be explained by the remaining claims and by processes that were foreign before."""
    ended = book.ending.get(subject)
    key = ended.lease.ask.request if ended is not None else subject
    for slot, mib in claimed.items():
        if slot in book.cards.touched or slot not in book.readings or book.cards.of(slot, key) <= SLACK_MIB:
            continue
        used = book.cards.used(slot) - book.unknown_mib(slot, key)
        if used > mib + SLACK_MIB:
            return f"{subject} counts as free on slot {slot}: {used} MiB are in use, the others claim {mib}"
    return None


@invariant(8, "nothing is loaded on a GPU while something else there is loaded or unloaded", "core", ev.Start, ev.Wake)
def loads_serialised(book: Book, effect: ev.Start | ev.Wake) -> str | None:
    return _beside(book, effect.model, GROWING | SHRINKING)


@invariant(
    8, "nothing that serves is unloaded on a GPU while something else there is loaded", "core", ev.Stop, ev.Sleep
)
def unloads_serialised(book: Book, effect: ev.Stop | ev.Sleep) -> str | None:
    model = effect.model
    if book.before.get(model) not in ("ready", "asleep") or model in book.failed_lives or book.on_lost(model):
        return None  # without its process or card it is gone at once, whoever loads beside it
    return _beside(book, model, GROWING)


def _beside(book: Book, model: str, states: frozenset[str]) -> str | None:
    for slot in book.scenario.machine.specs[model].gpu_mib:
        for other in book.claims[slot]:
            state = book.models.get(other) or (book.leases[other].state if other in book.leases else "")
            if other != model and state in states and not book.machine.observe:
                return f"{model} moves on slot {slot} while {other} is {state}"
    return None


@invariant(9, "a grant never uses more than both the account and the measurement leave", "core", *GRANTS)
def smaller_of_both(book: Book, effect: Any) -> str | None:
    if book.machine.observe or not _is_new(book, effect) or book.inside(getattr(effect, "model", "")) is not None:
        return None
    for slot in _wanted(book, effect):
        reading = book.reading(slot)
        if reading is None or reading.foreign_mib is None:
            continue
        claimed, total = book.charged(slot), reading.total_mib
        if claimed + reading.foreign_mib > total + SLACK_MIB:
            return f"slot {slot}: {claimed} claimed and {reading.foreign_mib} foreign MiB on a card of {total}"
    return None


@invariant(12, "a holder has all its GPUs or none", "core", *GRANTS)
def all_or_nothing(book: Book, effect: Any) -> str | None:
    if isinstance(effect, ev.LeaseGranted):
        ask, tokens = effect.lease.ask, effect.lease.tokens
        wanted = len(ask.gpus) or ask.count
        if (
            len(tokens) != wanted
            or (ask.gpus and set(tokens) != set(ask.gpus))
            or tokens.keys() != effect.lease.uuids.keys()
        ):
            return f"{effect.lease.id} wants {wanted} GPUs {ask.gpus}, got {dict(tokens)}"
        return None
    if effect.tokens.keys() != book.scenario.machine.specs[effect.model].gpu_mib.keys():
        return (
            f"{effect.model} needs slots {sorted(book.machine.specs[effect.model].gpu_mib)}, got {dict(effect.tokens)}"
        )
    return None


@invariant(14, "what cannot be measured any more is closed for new grants", "core", *GRANTS)
def unknown_is_closed(book: Book, effect: Any) -> str | None:
    if not _is_new(book, effect) or book.machine.observe or book.inside(getattr(effect, "model", "")) is not None:
        return None
    for slot in _wanted(book, effect):
        if slot in book.lost:
            return f"slot {slot} is lost, but {effect} was given there"
        if slot in book.readings and (
            book.readings[slot][0] is None or book.now - book.readings[slot][1] > STALE_READING_S + 1e-3
        ):
            return f"slot {slot} was last read at {book.readings[slot][1]:.2f}, but a grant came at {book.now:.2f}"
    return None


@invariant(15, "a lease names the cards by UUID, and keeps them", "core and shell", ev.LeaseGranted, ev.LeaseAnswered)
def bound_to_uuid(book: Book, effect: ev.LeaseGranted | ev.LeaseAnswered) -> str | None:
    for slot, uuid in effect.lease.uuids.items():
        if book.machine.uuids.get(slot) != uuid:
            return f"{effect.lease.id}: slot {slot} is {book.machine.uuids.get(slot)}, the lease says {uuid}"
    return None


@invariant(15, "a reading belongs to the card of its slot", "core and shell", ev.Measured)
def readings_of_the_right_card(book: Book, event: ev.Measured) -> str | None:
    for slot, reading in event.readings.items():
        if reading is not None and reading.total_mib != book.cards.totals[slot]:
            return f"slot {slot} has {book.cards.totals[slot]} MiB, the reading is of a card of {reading.total_mib}"
    return None


@invariant(30, "the status is one moment: no GPU ever shows more granted than it may", "core", EVERY)
def consistent_view(book: Book, _event: ev.Event) -> str | None:
    if book.events % 16 or not book.adopted or book.machine.observe:
        return None
    for gpu in book.core.view(book.state).gpus:
        alone = sum(holder.mib for holder in gpu.holders if holder.within is None)
        if gpu.held_mib < alone or gpu.held_mib != book.charged(gpu.slot):
            return (
                f"slot {gpu.slot} shows {gpu.held_mib} MiB held, {alone} by name, {book.charged(gpu.slot)} in the books"
            )
        if gpu.slot in book.superset and gpu.held_mib > gpu.budget_mib:
            continue
        if gpu.held_mib > gpu.budget_mib:
            return f"slot {gpu.slot} shows {gpu.held_mib} of {gpu.budget_mib} MiB granted"
        if not 0 <= gpu.free_mib <= gpu.budget_mib - gpu.held_mib:
            return f"slot {gpu.slot} shows {gpu.free_mib} MiB free with {gpu.held_mib} of {gpu.budget_mib} held"
    return None
