"""Who gets what, when each takes one: an assignment of wants to distinct things.

Owns the augmenting-path algorithm (Kuhn 1955) in a form small enough for GPUs of one machine. Knows neither.
"""

from __future__ import annotations

from collections.abc import Sequence


def assign(choices: Sequence[Sequence[int]]) -> tuple[int, ...] | None:
    """One of `choices[i]` for each i, all different, of those still free the first. None when there is no such assignment.

    >>> assign([[0, 1], [0]])
    (1, 0)
    >>> assign([[0], [0]]) is None
    True
    """
    owner: dict[int, int] = {}
    if not all(_find(want, choices, owner, set()) for want in range(len(choices))):
        return None
    taken = {want: thing for thing, want in owner.items()}
    return tuple(taken[want] for want in range(len(choices)))


def _find(want: int, choices: Sequence[Sequence[int]], owner: dict[int, int], seen: set[int]) -> bool:
    free = next((thing for thing in choices[want] if thing not in owner), None)
    if free is not None:
        owner[free] = want
        return True
    for thing in choices[want]:
        if thing not in seen:
            seen.add(thing)
            if _find(owner[thing], choices, owner, seen):
                owner[thing] = want
                return True
    return False
