"""A failing schedule made smaller: acts and bad habits that do not matter are left out.

Owns the search. It is greedy (halves, quarters … single acts), so that what remains is small, not smallest; each try is
a whole run, and a try counts only when the same invariant fails.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TypeVar

from imageworks.simulation.campaign import Parts, play
from imageworks.simulation.scenario import Habit, Scenario

TRIES = 400
Operation = tuple[str, str]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What is left: numbers of the acts that matter, and the operations whose habits do not."""

    acts: tuple[int, ...]
    tamed: tuple[Operation, ...]
    tries: int


def reduced(scenario: Scenario, acts: Collection[int], tamed: Collection[Operation]) -> Scenario:
    """The same schedule with only these acts, and with these operations always going well."""
    habits = {
        key: tuple(Habit("ok", habit.took_s, habit.then_s) for habit in each) if key in tamed else each
        for key, each in scenario.habits.items()
    }
    return replace(scenario, acts=tuple(scenario.acts[number] for number in sorted(acts)), habits=habits)


def shrink(scenario: Scenario, steps: int, number: int, parts: Callable[[], Parts] = Parts) -> Shrunk:
    """Make a schedule smaller in which invariant `number` fails."""
    search = _Search(scenario, steps, number, parts)
    acts = search.fewer(list(range(len(scenario.acts))), lambda left: (left, ()))
    wild = search.fewer(sorted(scenario.habits), lambda left: (acts, set(scenario.habits) - set(left)))
    tamed = tuple(sorted(set(scenario.habits) - set(wild)))
    acts = search.fewer(acts, lambda left: (left, tamed))
    return Shrunk(tuple(acts), tamed, search.tries)


class _Search:
    def __init__(self, scenario: Scenario, steps: int, number: int, parts: Callable[[], Parts]) -> None:
        self.scenario, self.steps, self.number, self.parts = scenario, steps, number, parts
        self.tries = 0

    def fails(self, acts: Collection[int], tamed: Collection[Operation]) -> bool:
        self.tries += 1
        found = play(reduced(self.scenario, acts, tamed), self.steps, self.parts()).book.violations
        return bool(found) and found[0].number == self.number

    def fewer(
        self, items: list[T], schedule: Callable[[list[T]], tuple[Collection[int], Collection[Operation]]]
    ) -> list[T]:
        """Leave out ever smaller pieces while the same invariant fails."""
        size = len(items)
        while size and self.tries < TRIES:
            at = 0
            while at < len(items) and self.tries < TRIES:
                left = items[:at] + items[at + size :]
                if self.fails(*schedule(left)):
                    items = left
                else:
                    at += size
            size //= 2
        return items
