"""Which models can be loaded together on a profile, and the proof that what must be together can be.

Owns the derivation (docs/decisions/071): a set of models is reachable when it fits every GPU, the host memory and the
number of models at once. The scheduler starts a model only under the same rule, so nothing else can happen. Shown are
the largest such sets with all that is kept in them, found without looking at every subset, or the fullest and what
bounds them all where they are too many, and the pairs that memory keeps apart. Sizes are those of `company`: bytes in whole MiB. Two models that a person keeps apart share one more pool,
numbered below HOST, that has room for one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

from imageworks.plan.company import HOST, Pools, Sizes, fits, largest_first
from imageworks.plan.fullest import fullest, most
from imageworks.plan.ir import MIB, Refusal, Residents, ResidentSet
from imageworks.plan.text import gib, plural
from imageworks.values import dataclass

MOST = 64
"""Sets, and refused pairs, that are listed."""
WORK = 200_000
"""Comparisons of a model with the room left, after which the search for further sets ends."""


@dataclass(frozen=True, slots=True)
class Table:
    """The placed models that take room, what each takes, the pools, and how many may be loaded at once.

    `counted_on_host`: the number is of models on the CPU, as on a profile without a GPU; else of those on GPUs.
    """

    sizes: Mapping[str, Sizes]
    room: Pools
    at_once: int
    counted_on_host: bool

    def side(self, *, on_host: bool) -> dict[str, Sizes]:
        """The models on the CPU, or those on GPUs: they never compete; largest first."""
        return largest_first({name: size for name, size in self.sizes.items() if (HOST in size) == on_host})

    def limit(self, *, on_host: bool) -> int:
        """How many of one side may be loaded at once."""
        return self.at_once if on_host == self.counted_on_host else len(self.sizes)


def residents(table: Table, kept: Sequence[str]) -> Residents:
    """What can be loaded together; `kept` (which fits, see `violation`) is part of every set."""
    sets: list[ResidentSet] = []
    refused: list[Refusal] = []
    bounds: list[str] = []
    for on_host in (False, True):
        side = table.side(on_host=on_host)
        if not side:
            continue
        fixed = tuple(name for name in side if name in kept)
        limit = table.limit(on_host=on_host)
        found = _Search(side, table.room, limit, fixed).sets()
        if found.complete:
            sets += [_described(names, table, on_host=on_host) for names in sorted(found.sets)]
        else:
            shown, told = _tightest(table, found, side, limit, fixed)
            sets.append(shown)
            bounds.append(told)
        refused += _apart(side, table, limit, fixed)
    return Residents(tuple(sets), "; ".join(bounds), tuple(refused))


def _described(names: tuple[str, ...], table: Table, *, on_host: bool) -> ResidentSet:
    """The set with the figures of its fullest pool."""
    left = table.room.left(table.sizes[name] for name in names)
    pools = _real(left, on_host=on_host)
    pool = min(pools, key=lambda number: (left[number], number))
    return ResidentSet(
        names, pool_name(pool), (table.room.room[pool] - left[pool]) // MIB, table.room.room[pool] // MIB
    )


def _real(pools: Iterable[int], *, on_host: bool) -> list[int]:
    """The pools of memory of one side."""
    return [pool for pool in pools if pool >= HOST and (pool == HOST) == on_host]


def pool_name(pool: int) -> str:
    """`GPU 0`, or the host."""
    return "host memory" if pool == HOST else f"GPU {pool}"


def _tightest(
    table: Table, found: _Found, side: Mapping[str, Sizes], limit: int, kept: Sequence[str]
) -> tuple[ResidentSet, str]:
    """The fullest set, and what holds for all of them: proved by the sums of each pool, whatever the number of sets."""
    on_host = any(HOST in size for size in side.values())
    best = fullest(side, table.room, limit, kept)
    sets = found.sets if best.names is None else (best.names,)
    listed = [_described(names, table, on_host=on_host) for names in sorted(sets)]
    shown = min(listed, key=lambda item: (item.room_mib - item.used_mib, item.models))
    proof = "shown is the fullest of all" if best.proved else "shown is the fullest found"
    place = "host memory" if on_host else "a GPU"
    return shown, (
        f"more than {MOST} sets, so they are not listed: none has more than "
        f"{plural(most(side, table.room, limit, kept), 'model')}, none leaves less than {best.bound} MiB of {place}; {proof}"
    )


def _apart(side: Mapping[str, Sizes], table: Table, limit: int, kept: Sequence[str]) -> Iterator[Refusal]:
    """The pairs that memory keeps apart beside what is kept, largest first, where two may be loaded at all."""
    free = [name for name in side if name not in kept][:MOST]
    if limit - len(kept) < 2:  # noqa: PLR2004 - a pair
        return
    count = 0
    for pair in combinations(free, 2):
        reason = violation(table, (*kept, *pair))
        if reason is not None and set(pair) <= set(reason.models):
            yield reason
            count += 1
        if count == MOST:
            return


def violation(table: Table, names: Iterable[str]) -> Refusal | None:
    """The fewest of `names` that cannot be loaded together, with their sum; None when all can.

    Of several smallest sets in a pool it is the one with the most memory; memory goes before the number of models.
    """
    sizes = {name: table.sizes[name] for name in names if name in table.sizes}
    found: list[Refusal] = []
    for pool, room in table.room.room.items():
        parts = {name: size[pool] for name, size in sizes.items() if pool in size}
        if sum(parts.values()) > room:
            found.append(_overfull(parts, pool, room))
    counted = sorted(name for name, size in sizes.items() if (HOST in size) == table.counted_on_host)
    if len(counted) > table.at_once:
        few = tuple(counted[: table.at_once + 1])
        found.append(Refusal(few, f"{plural(len(few), 'model')}, {table.at_once} at once"))
    return min(found, key=lambda refusal: len(refusal.models), default=None)


def _overfull(parts: Mapping[str, int], pool: int, room: int) -> Refusal:
    if pool < HOST:
        first, second = sorted(parts)
        return Refusal((first, second), f"{first} is never loaded beside {second}: coexist.never")
    chosen: list[str] = []
    while sum(parts[name] for name in chosen) <= room:
        chosen.append(min(parts.keys() - set(chosen), key=lambda name: (-parts[name], name)))
    terms = " + ".join(f"{name} {gib(parts[name])}" for name in sorted(chosen))
    total = sum(parts[name] for name in chosen)
    return Refusal(tuple(sorted(chosen)), f"{terms} = {gib(total)} GiB > {gib(room)} of {pool_name(pool)}")


@dataclass(frozen=True, slots=True)
class _Found:
    """Sets, each sorted by name; `complete` when there are no others."""

    sets: tuple[tuple[str, ...], ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class _Step:
    """A partial set: the models chosen and left out so far, and where to go on."""

    chosen: tuple[int, ...]
    skipped: tuple[int, ...]
    index: int
    left: Mapping[int, int]


class _Search:
    """Depth first over include or skip; a branch ends where a skipped model could be added to all that may follow."""

    def __init__(self, side: Mapping[str, Sizes], room: Pools, limit: int, kept: Sequence[str]) -> None:
        self.names, self.limit, self.kept = [name for name in side if name not in kept], limit - len(kept), kept
        self.sizes = [side[name] for name in self.names]
        self.start = _Step((), (), 0, room.left(side[name] for name in kept))

    def sets(self) -> _Found:
        """At most MOST sets; at least one."""
        found: list[tuple[str, ...]] = []
        open_steps, work = [self.start], 0
        while open_steps and work < WORK and len(found) <= MOST:
            step = open_steps.pop()
            looked_at = (*range(step.index, len(self.names)), *step.skipped) if len(step.chosen) < self.limit else ()
            work += len(looked_at) + 1
            free = [index for index in looked_at if fits(self.sizes[index], step.left)]
            able = [index for index in free if index >= step.index]
            blockable = [index for index in free if index < step.index]
            if self._is_in_vain(able, blockable, step):
                continue
            if self._all_fit(able, step):
                found.append(self._named((*step.chosen, *able)))
            else:
                open_steps += self._branches(step, able, blockable)
        complete = not open_steps and len(found) <= MOST
        return _Found(tuple(found) or (self._greedy(),), complete)

    def _all_fit(self, able: Sequence[int], step: _Step) -> bool:
        left = _less(step.left, (self.sizes[index] for index in able))
        return len(step.chosen) + len(able) <= self.limit and min(left.values()) >= 0

    def _is_in_vain(self, able: Sequence[int], skipped: Sequence[int], step: _Step) -> bool:
        """Could a skipped model still be added to all that may follow? Then no set without it is one of the largest."""
        if not skipped or len(step.chosen) + len(able) >= self.limit:
            return False
        left = _less(step.left, (self.sizes[index] for index in able))
        return any(fits(self.sizes[index], left) for index in skipped)

    def _branches(self, step: _Step, able: Sequence[int], skipped: Sequence[int]) -> Iterator[_Step]:
        """Skip the first model that fits, or take it; what is taken is looked at first."""
        first = able[0]
        yield _Step(step.chosen, (*skipped, first), first + 1, step.left)
        yield _Step((*step.chosen, first), tuple(skipped), first + 1, _less(step.left, (self.sizes[first],)))

    def _greedy(self) -> tuple[str, ...]:
        chosen: list[int] = []
        left = self.start.left
        for index, size in enumerate(self.sizes):
            if len(chosen) < self.limit and fits(size, left):
                chosen.append(index)
                left = _less(left, (size,))
        return self._named(tuple(chosen))

    def _named(self, chosen: Sequence[int]) -> tuple[str, ...]:
        return tuple(sorted((*self.kept, *(self.names[index] for index in chosen))))


def _less(left: Mapping[int, int], used: Iterable[Sizes]) -> Mapping[int, int]:
    rest = dict(left)
    for sizes in used:
        for pool, size in sizes.items():
            rest[pool] -= size
    return rest
