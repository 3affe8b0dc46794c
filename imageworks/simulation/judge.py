"""The observer that judges: writes each step down and asks every invariant that it concerns.

Owns the dispatch from events, effects and moments to checkers. The first violation ends a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imageworks.runtime import events as ev
from imageworks.runtime.leases import Lease
from imageworks.simulation.agenda import Agenda
from imageworks.simulation.book import Book, Violation
from imageworks.simulation.cards import Cards
from imageworks.simulation.core import Core
from imageworks.simulation.invariants import END, EVERY, Invariant, by_moment
from imageworks.simulation.programs import Program, Programs
from imageworks.simulation.scenario import Scenario
from imageworks.simulation.store import Store

NONE: tuple[Invariant, ...] = ()


class Judge(Book):
    """A book with the invariants in force: all, or `only` those of one number."""

    def __init__(  # noqa: PLR0917 - a world's parts, in the order in which they are made
        self,
        scenario: Scenario,
        core: Core,
        agenda: Agenda,
        store: Store,
        cards: Cards,
        programs: Programs,
        only: int | None = None,
    ) -> None:
        super().__init__(scenario, core, agenda, store, cards, programs)
        self._on = by_moment(only)
        self._each = self._on.get(EVERY, NONE)

    def see(self, event: ev.Event, effects: tuple[ev.Effect, ...], state: Any, now: float) -> None:
        """One step of the scheduler."""
        self.begin(event, effects, state, now)
        if isinstance(event, ev.Adopt):
            self.note_superset()
        for invariant in self._on.get(type(event), NONE):
            self._ask(invariant, event)
        for effect in effects:
            for invariant in self._on.get(type(effect), NONE):
                self._ask(invariant, effect)
        for invariant in self._each:
            self._ask(invariant, event)

    def forwarded(self, request: str, model: str, generation: int, program: Program) -> None:
        """The first byte of a request goes to the model's process."""
        for invariant in self._on.get("forward", NONE):
            self._ask(invariant, (request, model, generation, program))

    def given(self, who: str, tokens: Mapping[int, int]) -> None:
        """Fencing tokens went out of the manager: to a client, or with a start."""
        for invariant in self._on.get("given", NONE):
            self._ask(invariant, (who, tokens))

    def tell(self, lease: Lease) -> None:
        """A client is told of its lease, or of its new tokens."""
        if self.given_to.get(lease.id) != lease.tokens:
            self.given(lease.id, lease.tokens)
            self.given_to[lease.id] = lease.tokens
        self.told[lease.id] = lease.tokens

    def ended(self) -> None:
        """The run is over and everything came to rest."""
        for invariant in self._on.get(END, NONE):
            self._ask(invariant, None)

    def compare(self, other: Book) -> None:
        """The same schedule was played once more."""
        for invariant in self._on.get("again", NONE):
            self._ask(invariant, other)

    def _ask(self, invariant: Invariant, item: Any) -> None:
        text = invariant.check(self, item)
        if text is not None:
            self.violations.append(
                Violation(invariant.number, f"{invariant.check.__name__}: {text}", self.events, self.now)
            )
