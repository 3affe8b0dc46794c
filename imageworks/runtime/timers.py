"""Moments at which waiting alone changes something.

Owns a heap of (time, kind, name) with at most one live entry for each (kind, name). Cancelling is lazy: a dead entry
is dropped when it comes up, and the heap is rebuilt when most of it is dead. Knows nothing of what the kinds mean.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Literal

Kind = Literal["deadline", "ask", "grace", "residency", "retry", "stop", "ttl", "proof", "reclaim"]
SLACK = 64


class Timers:
    """Set, cancel, and take what is due."""

    __slots__ = ("at", "heap")

    def __init__(self) -> None:
        self.at: dict[tuple[Kind, str], float] = {}
        self.heap: list[tuple[float, Kind, str]] = []

    def set(self, kind: Kind, name: str, time: float) -> None:
        """Replace the moment of (kind, name)."""
        if self.at.get((kind, name)) != time:
            self.at[kind, name] = time
            heappush(self.heap, (time, kind, name))
            self._compact()

    def cancel(self, kind: Kind, name: str) -> None:
        """Forget it; nothing happens when there is none."""
        self.at.pop((kind, name), None)

    def next(self) -> float | None:
        """The earliest live moment."""
        heap, at = self.heap, self.at
        while heap:
            time, kind, name = heap[0]
            if at.get((kind, name)) == time:
                return time
            heappop(heap)
        return None

    def due(self, now: float) -> tuple[Kind, str] | None:
        """Take the earliest live moment that is not after `now`."""
        time = self.next()
        if time is None or time > now:
            return None
        _, kind, name = heappop(self.heap)
        del self.at[kind, name]
        return kind, name

    def copy(self) -> Timers:
        """An independent copy."""
        other = Timers()
        other.at, other.heap = dict(self.at), list(self.heap)
        return other

    def _compact(self) -> None:
        if len(self.heap) > 2 * len(self.at) + SLACK:
            self.heap = [(time, kind, name) for (kind, name), time in self.at.items()]
            heapify(self.heap)
