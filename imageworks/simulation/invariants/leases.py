"""Invariants about leases and tokens: I3, I4, I5, I6, I26, I27, I28.

Owns the checkers that follow each lease from its grant to its end, and each token that was ever given.
"""

from __future__ import annotations

from collections.abc import Mapping

from imageworks.runtime import events as ev
from imageworks.simulation.book import Book
from imageworks.simulation.invariants.registry import EVERY, invariant

MARGIN_S = 1e-3


@invariant(3, "a token per GPU only grows, over restarts, lost files and clock jumps", "core and shell", "given")
def tokens_grow(book: Book, given: tuple[str, Mapping[int, int]]) -> str | None:
    who, tokens = given
    for slot, token in tokens.items():
        uuid = book.scenario.machine.uuids[slot]
        if token <= book.tokens[uuid]:
            return f"{who} got token {token} on {uuid}, {book.tokens[uuid]} was given before"
        book.tokens[uuid] = token
    return None


@invariant(4, "the same request gets the same lease, and one only", "core", ev.LeaseGranted)
def idempotent_acquire(book: Book, effect: ev.LeaseGranted) -> str | None:
    asked, lease = book.answering.get(effect.call), effect.lease
    if not isinstance(asked, ev.Acquire) or asked.ask.request != lease.ask.request:
        return f"{effect.call} asked for {asked}, got {lease.ask.request}"
    twins = [
        name for name, held in book.leases.items() if held.lease.ask.request == lease.ask.request and name != lease.id
    ]
    if twins:
        return f"request {lease.ask.request} holds {lease.id} and {twins[0]}"
    if book.leases[lease.id].lease.tokens != lease.tokens:
        return (
            f"{lease.id} was granted with {dict(book.leases[lease.id].lease.tokens)}, again with {dict(lease.tokens)}"
        )
    return None


@invariant(4, "a model has one life at a time", "core", ev.Start)
def one_life(book: Book, effect: ev.Start) -> str | None:
    return f"{effect.model} was started while its last life was not seen gone" if effect.model in book.doubled else None


@invariant(5, "a stale token changes nothing and gets an error of its own", "core", ev.LeaseAnswered)
def stale_tokens_refused(book: Book, effect: ev.LeaseAnswered) -> str | None:
    asked = book.answering.get(effect.call)
    known = book.token_before.get(effect.lease.id)
    if isinstance(asked, (ev.Renew, ev.Release, ev.Handover)) and known is not None and asked.token != known:
        return f"{effect.call} showed token {asked.token} for {effect.lease.id}, whose token is {known}"
    return None


@invariant(5, "a request with a stale token is refused", "core", ev.Grant)
def stale_requests_refused(book: Book, effect: ev.Grant) -> str | None:
    asked = book.answering.get(effect.request)
    return (
        f"{effect.request} showed a stale token, and was granted {effect.model}"
        if asked is not None and asked.stale
        else None
    )


@invariant(6, "a lease ends once, however often it is released", "core", ev.LeaseEnded)
def ends_once(book: Book, effect: ev.LeaseEnded) -> str | None:
    if effect.lease in book.over:
        return f"{effect.lease} ended a second time"
    book.over.add(effect.lease)
    return None


@invariant(26, "no jump of a clock ends a lease early", "core and shell", ev.Reclaim)
def expires_by_its_own_time(book: Book, effect: ev.Reclaim) -> str | None:
    held = book.ending.get(effect.lease)
    if held is None or effect.lease in book.told_to_end or book.before.get(effect.lease) != "active":
        return None
    awake_s = book.awake() - held.renewed_awake
    if book.lost.isdisjoint(held.lease.tokens) and awake_s < held.lease.ask.ttl_s - MARGIN_S:
        return f"{effect.lease} ended {awake_s:.2f} s after its last renewal, its ttl is {held.lease.ask.ttl_s} s"
    return None


@invariant(27, "a renewal in time keeps the lease", "core", ev.LeaseDenied)
def in_time_keeps(book: Book, effect: ev.LeaseDenied) -> str | None:
    asked = book.answering.get(effect.call)
    if not isinstance(asked, ev.Renew):
        return None
    held = book.leases.get(asked.lease)
    good = held is not None and held.state == "active" and held.lease.token == asked.token
    if good and held is not None and book.now < held.lease.expires - MARGIN_S:
        return f"{asked.lease} was renewed {held.lease.expires - book.now:.2f} s before its end, and denied"
    return None


@invariant(27, "a lease that was not renewed in time is over", "core", EVERY)
def lateness_ends(book: Book, _event: ev.Event) -> str | None:
    late = book.expired()
    return f"{late} is active after its ttl" if late is not None else None


@invariant(28, "acquired minus ended leases are the live ones", "core", EVERY)
def balanced(book: Book, _event: ev.Event) -> str | None:
    if not book.adopted or len(book.state.leases) == len(book.leases):
        return None
    return f"{len(book.leases)} were granted and did not end, {len(book.state.leases)} are live"
