"""How few loads would have been possible, knowing the whole trace beforehand.

Owns the offline bound. One model at a time on the card: exact for a trace that waits there as a whole, and a lower bound
for one that comes in bit by bit (who knows the future may still wait for it). The bound on waiting is kept: nobody is
served more than `overtakes` places after their turn. More than one model at a time: the number of different models.
"""

from __future__ import annotations

from collections.abc import Sequence

from imageworks.runtime.residency import Machine
from imageworks.simulation.rivals import fits
from imageworks.simulation.trace import Job

STRETCHES = 1_500_000
"""Larger searches are given up."""


def fewest_loads(machine: Machine, jobs: Sequence[Job], overtakes: int | None) -> tuple[int, str]:
    """The number, and in one sentence what it is."""
    models = sorted({job.models[0] for job in jobs})
    alone = all(not fits(machine, [one], machine.specs[other]) for one in models for other in models if one != other)
    if not alone or overtakes is None or len(models) == 1:
        return len(models), "lower bound: each model is loaded once"
    found = _search([job.models[0] for job in jobs], models, overtakes)
    if found is None:
        return len(models), "lower bound: each model is loaded once (too large for an exact search)"
    return (
        found,
        f"exact for a trace that waits as a whole, nobody served more than {overtakes} places after their turn",
    )


def _search(asked: Sequence[str], models: Sequence[str], overtakes: int) -> int | None:
    """Fewest stretches of one model each, breadth first; None when there are too many to look at.

    A state is how many of each model were served. A stretch may end anywhere before somebody is too late, so from
    the lowest count of its model at which it can begin it reaches all that a later beginning would.
    """
    places = [[index for index, name in enumerate(asked) if name == model] for model in models]
    before = [[[sum(other < place for other in others) for others in places] for place in own] for own in places]
    totals = tuple(len(each) for each in places)
    zero = (0,) * (len(models) - 1)
    begin = {(model, zero): 0 for model in range(len(models))}
    known: dict[tuple[int, tuple[int, ...]], int] = {}
    loads = 0
    while begin and len(known) <= STRETCHES:
        loads += 1
        following: dict[tuple[int, tuple[int, ...]], int] = {}
        for (model, others), lowest in begin.items():
            reached = known.get((model, others), totals[model])
            known[model, others] = lowest
            served = [*others[:model], lowest, *others[model:]]
            for count in range(lowest + 1, reached + 1):
                served[model] = count
                if _most_late(before, served) > overtakes:
                    break
                if tuple(served) == totals:
                    return loads
                _go_on(served, model, totals, known, following)
        begin = following
    return None


def _go_on(
    served: list[int],
    ended: int,
    totals: tuple[int, ...],
    known: dict[tuple[int, tuple[int, ...]], int],
    following: dict[tuple[int, tuple[int, ...]], int],
) -> None:
    """Stretches of the other models that can begin here, where no lower beginning is known."""
    for model, count in enumerate(served):
        if model != ended and count < totals[model]:
            key = (model, (*served[:model], *served[model + 1 :]))
            if count < known.get(key, totals[model]) and count < following.get(key, totals[model]):
                following[key] = count


def _most_late(before: Sequence[Sequence[Sequence[int]]], served: Sequence[int]) -> int:
    """Of the oldest waiters of each model, how many places the latest one is behind its turn."""
    done_in_all = sum(served)
    return max(
        (done_in_all - sum(own[done]) for own, done in zip(before, served, strict=True) if done < len(own)), default=0
    )
