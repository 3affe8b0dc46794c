"""Virtual time: what is to happen, in order.

Owns the clock of a simulated world and the heap of what falls due. Two things due at the same time happen in the
order in which they were put in, so a run is a function of its schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Agenda:
    """A clock in seconds that moves from one thing that is due to the next."""

    __slots__ = ("_due", "_number", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0

    def after(self, delay_s: float, act: Callable[..., None], *arguments: Any) -> None:
        """`act(*arguments)` falls due in `delay_s` seconds; nothing falls due in the past."""
        self._number += 1
        heappush(self._due, (self.now + max(0.0, delay_s), self._number, act, arguments))

    def at(self, time: float, act: Callable[..., None], *arguments: Any) -> None:
        """`act(*arguments)` falls due at `time`, to the last digit: what was put off to one moment stays in order."""
        self._number += 1
        heappush(self._due, (max(time, self.now), self._number, act, arguments))

    def go_on(self) -> bool:
        """Do what falls due next; False when nothing does."""
        if not self._due:
            return False
        self.now, _, act, arguments = heappop(self._due)
        act(*arguments)
        return True
