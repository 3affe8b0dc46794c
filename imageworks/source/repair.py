"""A text with small repairs, and the way back to the places of the original.

Owns the offsets map that lets the parser go on behind a mistake that has been reported: the tree is read from the
repaired text, its spans point into the text as the person wrote it.
"""

from __future__ import annotations

from bisect import bisect_right

from imageworks.values import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Repair:
    """Replace `start` to `end` of the original by `text`."""

    start: int
    end: int
    text: str


class Repaired:
    """`original` with `repairs` applied; they must not overlap.

    >>> repaired = Repaired("a: >=1", (Repair(3, 6, '">=1"'),))
    >>> repaired.text, repaired.original_offset(8)
    ('a: ">=1"', 6)
    """

    def __init__(self, original: str, repairs: tuple[Repair, ...]) -> None:
        self.original = original
        self.repairs = tuple(sorted(repairs))
        pieces, self._new, self._old, done = [], [0], [0], 0
        length = 0
        for repair in self.repairs:
            kept = original[done : repair.start]
            pieces += [kept, repair.text]
            self._new += [length + len(kept), length + len(kept) + len(repair.text)]
            self._old += [repair.start, repair.end]
            length, done = self._new[-1], repair.end
        self.text = "".join([*pieces, original[done:]])

    def original_offset(self, offset: int) -> int:
        """Where `offset` of the repaired text stands in the original; inside a repair: its start."""
        index = bisect_right(self._new, offset) - 1
        inside_repair = index % 2 == 1
        return self._old[index] if inside_repair else self._old[index] + offset - self._new[index]

    def with_repair(self, repair: Repair) -> Repaired | None:
        """This text with one more repair; None when it would touch an earlier one."""
        if any((repair.start < other.end and other.start < repair.end) or repair == other for other in self.repairs):
            return None
        return Repaired(self.original, (*self.repairs, repair))
