"""How few loads would have been possible, knowing the whole trace beforehand.

Owns the offline bound. One model at a time on the card: exact for a trace that waits there as a whole, and a lower bound
for one that comes in bit by bit (who knows the future may still wait for it). The bound on waiting is kept: nobody is
passed by more than `overtakes` later arrivals. More than one model at a time: the number of different models.
"""

from __future__ import annotations

from collections.abc import Sequence

from imageworks.runtime.residency import Machine
from imageworks.simulation.rivals import fits
from imageworks.simulation.trace import Job

STATES = 4_000_000
"""Larger searches are not begun."""


def fewest_loads(machine: Machine, jobs: Sequence[Job], overtakes: int | None) -> tuple[int, str]:
    """The number, and in one sentence what it is."""
    models = sorted({job.models[0] for job in jobs})
    alone = all(not fits(machine, [one], machine.specs[other]) for one in models for other in models if one != other)
    if not alone or overtakes is None or len(models) < 2:
        return len(models), "lower bound: each model is loaded once"
    found = _search([job.models[0] for job in jobs], models, overtakes)
    if found is None:
        return len(models), "lower bound: each model is loaded once (too large for an exact search)"
    return found, f"exact for a trace that waits as a whole, nobody passed more than {overtakes} times"


def _search(asked: Sequence[str], models: Sequence[str], overtakes: int) -> int | None:
    """Fewest stretches of one model each. A state says how many of each model were served."""
    places = [[index for index, name in enumerate(asked) if name == model] for model in models]
    later = _Later(places)
    goal = tuple(len(each) for each in places)
    frontier = {(tuple(0 for _ in models), -1)}
    seen: set[tuple[tuple[int, ...], int]] = set()
    loads = 0
    while frontier:
        loads += 1
        following: set[tuple[tuple[int, ...], int]] = set()
        for served, current in frontier:
            for model in range(len(models)):
                if model != current:
                    following.update((state, model) for state in _stretch(served, model, later, overtakes))
        following -= seen
        if any(state == goal for state, _ in following):
            return loads
        seen |= following
        if len(seen) > STATES:
            return None
        frontier = following
    return None


def _stretch(served: tuple[int, ...], model: int, later: _Later, overtakes: int) -> list[tuple[int, ...]]:
    """Where one stretch of a model may end: anywhere before somebody is passed too often."""
    states = []
    now = list(served)
    while now[model] < len(later.places[model]):
        now[model] += 1
        if later.most_passed(now) > overtakes:
            break
        states.append(tuple(now))
    return states


class _Later:
    """How often the oldest waiter of each model was passed, from the numbers of served ones."""

    def __init__(self, places: Sequence[Sequence[int]]) -> None:
        self.places = places
        # before[a][i][b]: how many of model b came before the i-th of model a
        self._before = [
            [[sum(other < place for other in others) for others in places] for place in own] for own in places
        ]

    def most_passed(self, served: Sequence[int]) -> int:
        """Of all waiting, the most often passed one's count."""
        most = 0
        for model, own in enumerate(self._before):
            if served[model] < len(own):
                before = own[served[model]]
                passed = sum(max(0, done - earlier) for done, earlier in zip(served, before, strict=True))
                most = max(most, passed)
        return most
