"""The list of invariants: each is one named function, called for what it is about.

Owns the decorator and the tables made by it. A checker gets the observer's book and the event or effect; it returns None
or what is wrong, in one sentence. It must look only at what that event or effect touches: it runs tens of thousands
of times a second. Numbers and wording follow the list in docs/reliability.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from imageworks.simulation.book import Book

EVERY, START, END = "every step", "start of a life", "end of a run"
Check = Callable[[Book, Any], str | None]
Place = Literal["core", "shell", "store", "core and shell"]


@dataclass(frozen=True, slots=True)
class Invariant:
    """One promise. `place` says which part keeps it; `on` lists event and effect types, or moments, that call `check`."""

    number: int
    title: str
    place: Place
    on: tuple[type[Any] | str, ...]
    check: Check


INVARIANTS: list[Invariant] = []


def invariant(number: int, title: str, place: Place, *on: type[Any] | str) -> Callable[[Check], Check]:
    """Put a checker on the list."""

    def listed(check: Check) -> Check:
        INVARIANTS.append(Invariant(number, title, place, on, check))
        return check

    return listed


def by_moment(only: int | None = None) -> Mapping[type[Any] | str, tuple[Invariant, ...]]:
    """Which invariants are looked at for an event or effect type, or a moment; `only` those of one number."""
    chosen = [each for each in INVARIANTS if only in (None, each.number)]
    moments = dict.fromkeys(moment for each in chosen for moment in each.on)
    return {moment: tuple(each for each in chosen if moment in each.on) for moment in moments}
