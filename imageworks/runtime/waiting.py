"""Who waits, and in which order.

Owns the queue entries, a line for each model (who is served next when it is up) and a lane for each set of GPUs (which
model or lease is placed next). Order is priority, then age; but a waiter that was passed `max_overtakes` times by later
arrivals goes first. Passes are not counted one by one for everybody: each queue counts its departures, and a waiter
notes the count at which it must have been passed often enough, given how many were ahead of it when it came.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush

from imageworks.runtime.leases import LeaseAsk

Key = tuple[int, int]
"""Negative priority (or passes), then age: the smallest is first."""


@dataclass(slots=True)
class Waiting:
    """A request in the queue; `models[0]` is the one it waits for, `seq` its age, `lease` the lease it runs under.

    `limit` is the count of departures of its line, `limits` those of the crowds, at which it goes first;
    `up`: its model is up, so it only waits for a free place there.
    """

    request: str
    models: tuple[str, ...]
    deadline: float
    seq: int
    priority: int = 0
    lease: str | None = None
    limit: int = 0
    limits: Mapping[int, int] = field(default_factory=dict)
    up: bool = False

    @property
    def key(self) -> Key:
        """Its place in the order."""
        return -self.priority, self.seq


@dataclass(slots=True)
class Asking:
    """A call for a lease that waits, `calls` are all that asked for the same.

    `chosen` are GPUs that are being cleared for it, `evicted` the models that had to go for it.
    """

    calls: tuple[str, ...]
    ask: LeaseAsk
    deadline: float
    seq: int
    chosen: tuple[int, ...] = ()
    evicted: tuple[str, ...] = ()
    limits: Mapping[int, int] = field(default_factory=dict)
    up: bool = False

    @property
    def key(self) -> Key:
        """Its place in the order."""
        return -self.ask.priority, self.seq


Queued = Mapping[int, Waiting | Asking]
"""Everybody who waits, by age."""


class Line:
    """The requests of one model under one lease or none. Leaving is lazy: who does not wait here any more is skipped."""

    __slots__ = ("ages", "departed", "heap", "lease", "limits", "model", "size")

    def __init__(self, model: str, lease: str | None) -> None:
        self.model, self.lease = model, lease
        self.heap: list[Key] = []
        self.limits: list[Key] = []
        self.ages: list[int] = []
        self.size = self.departed = 0

    def add(self, waiting: Waiting, overtakes: int) -> None:
        """Queue up."""
        waiting.limit = self.departed + self.size + overtakes
        self.size += 1
        heappush(self.heap, waiting.key)
        heappush(self.limits, (waiting.limit, waiting.seq))
        heappush(self.ages, waiting.seq)

    def leave(self) -> None:
        """One that stands here goes, wherever to."""
        self.size -= 1
        self.departed += 1
        if not self.size:
            self.heap.clear()
            self.limits.clear()
            self.ages.clear()

    def best(self, queued: Queued) -> Waiting | None:
        """The first by priority and age."""
        heap = self.heap
        while heap:
            found = self._here(queued, heap[0][1])
            if found is not None:
                return found
            heappop(heap)
        return None

    def nearest(self, queued: Queued) -> Waiting | None:
        """Who has the fewest passes left: mostly the oldest."""
        limits = self.limits
        while limits:
            limit, seq = limits[0]
            found = self._here(queued, seq)
            if found is not None and found.limit == limit:
                return found
            heappop(limits)
        return None

    def oldest(self, queued: Queued) -> Waiting | None:
        """Who came first."""
        ages = self.ages
        while ages:
            found = self._here(queued, ages[0])
            if found is not None:
                return found
            heappop(ages)
        return None

    def next(self, queued: Queued) -> Waiting | None:
        """Who is served next: one that was passed often enough, else the first by priority and age."""
        nearest = self.nearest(queued)
        return nearest if nearest is None or self.departed >= nearest.limit else self.best(queued)

    def members(self, queued: Queued) -> list[Waiting]:
        """All of them, oldest first."""
        return [found for seq in sorted(set(self.ages)) if (found := self._here(queued, seq)) is not None]

    def _here(self, queued: Queued, seq: int) -> Waiting | None:
        found = queued.get(seq)
        here = isinstance(found, Waiting) and found.models[0] == self.model and found.lease == self.lease
        return found if here else None  # type: ignore[return-value]  # `here` says what it is

    def copy(self) -> Line:
        """An independent copy."""
        other = Line(self.model, self.lease)
        other.heap, other.limits, other.ages = list(self.heap), list(self.limits), list(self.ages)
        other.size, other.departed = self.size, self.departed
        return other


class Crowd:
    """All who wait for memory of one place. `departed` counts who left it, and who was granted something that is in the way.

    `ages` orders them by the count at which they were passed often enough, `due` has those who were, by age.
    """

    __slots__ = ("ages", "departed", "due", "size")

    def __init__(self) -> None:
        self.ages: list[Key] = []
        self.due: list[int] = []
        self.size = self.departed = 0

    def overdue(self, queued: Queued, place: int, count: int) -> list[Waiting | Asking]:
        """Up to `count` of those who were passed often enough, oldest first."""
        ages, due = self.ages, self.due
        while ages and ages[0][0] <= self.departed:
            heappush(due, heappop(ages)[1])
        found: list[Waiting | Asking] = []
        last = 0
        while due and len(found) < count:
            seq = heappop(due)
            entry = queued.get(seq)
            if seq != last and entry is not None and place in entry.limits and not entry.up:
                found.append(entry)
            last = seq
        for entry in found:
            heappush(due, entry.seq)
        return found

    def copy(self) -> Crowd:
        """An independent copy."""
        other = Crowd()
        other.ages, other.due, other.size, other.departed = list(self.ages), list(self.due), self.size, self.departed
        return other


BEHIND: Key = (10**12, 0)
"""Behind everybody."""


class Lane:
    """What waits to be placed on one set of GPUs: names with a key each; the smallest keys come first.

    `seen` is the last key that `first` returned when there were more: what changes behind it changes nothing.
    """

    __slots__ = ("heap", "keys", "seen")

    def __init__(self) -> None:
        self.seen = BEHIND
        self.heap: list[tuple[Key, str]] = []
        self.keys: dict[str, Key] = {}

    def put(self, name: str, key: Key) -> bool:
        """Enlist, or move to another place; True when that may change who is in front."""
        before = self.keys.get(name)
        if before == key:
            return False
        self.keys[name] = key
        heappush(self.heap, (key, name))
        return key <= self.seen or (before is not None and before <= self.seen)

    def drop(self, name: str) -> bool:
        """Take out; True when that may change who is in front."""
        before = self.keys.pop(name, None)
        matters = before is not None and before <= self.seen
        if not self.keys:
            self.heap.clear()
            self.seen = BEHIND
        return matters

    def first(self, count: int) -> list[tuple[Key, str]]:
        """Up to `count` entries from the front; they stay."""
        found = []
        for entry in self._taken():
            found.append(entry)
            if len(found) == count:
                break
        for entry in found:
            heappush(self.heap, entry)
        self.seen = found[-1][0] if len(found) == count else BEHIND
        return found

    def _taken(self) -> Iterator[tuple[Key, str]]:
        heap, last = self.heap, None
        while heap:
            entry = heappop(heap)
            if self.keys.get(entry[1]) == entry[0] and entry != last:
                last = entry
                yield entry

    def copy(self) -> Lane:
        """An independent copy."""
        other = Lane()
        other.heap, other.keys, other.seen = list(self.heap), dict(self.keys), self.seen
        return other
