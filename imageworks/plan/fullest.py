"""The fullest set of models that can be loaded together, and a proof that no other is fuller, without listing sets.

Owns the bound that stands in for the list of `residents` where that would be too long (docs/decisions/096): for each
pool all sums of sizes that fit are kept as the bits of one number, so models are added one by one and subsets are never
looked at. What a pool alone allows is an upper bound for every set; it is reached where one set with that sum also fits
everything else. Sizes are bytes in whole MiB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from imageworks.plan.company import HOST, Pools, Sizes, fits
from imageworks.plan.ir import MIB
from imageworks.values import dataclass

STEPS = 50_000
"""Shifts of a number per pool; beyond it the number of models is left out of the sum, which then only bounds."""


@dataclass(frozen=True, slots=True)
class Fullest:
    """The set that leaves the least of a pool, `left` MiB of `pool`; None where no set reaches the bound.

    `bound`: no set leaves less MiB of any pool. `proved`: the set leaves no more than that.
    """

    names: tuple[str, ...] | None
    bound: int

    @property
    def proved(self) -> bool:
        """True when the set is the fullest of all."""
        return self.names is not None


def fullest(side: Mapping[str, Sizes], room: Pools, limit: int, kept: Sequence[str]) -> Fullest:
    """The fullest set of `side`, which holds at most `limit` models and all of `kept`, extended as far as it goes."""
    start = room.left(side[name] for name in kept)
    best: tuple[int, tuple[str, ...] | None] | None = None
    for pool in sorted({pool for sizes in side.values() for pool in sizes if pool >= HOST}):
        chosen = _fill(side, start, pool, limit - len(kept), kept)
        left = start[pool] // MIB - sum(side[name][pool] // MIB for name in chosen)
        able = _fits_all(side, start, chosen, limit - len(kept))
        item = left, _extended(side, start, (*kept, *chosen), len(kept), limit) if able else None
        if best is None or (left, item[1] is None) < (best[0], best[1] is None):
            best = item
    return Fullest(best[1], best[0]) if best else Fullest((), 0)


def most(side: Mapping[str, Sizes], room: Pools, limit: int, kept: Sequence[str]) -> int:
    """No set has more models than this: so many of the smallest need no more than all memory that is left."""
    start = room.left(side[name] for name in kept)
    pools = {pool for sizes in side.values() for pool in sizes if pool >= HOST}
    left, count = sum(start[pool] for pool in pools), len(kept)
    needs = (sum(size for pool, size in side[name].items() if pool >= HOST) for name in side if name not in kept)
    for need in sorted(needs):
        left -= need
        if left < 0:
            break
        count += 1
    return min(count, limit)


def _fits_all(side: Mapping[str, Sizes], start: Mapping[int, int], chosen: Sequence[str], limit: int) -> bool:
    left = dict(start)
    for name in chosen:
        for pool, size in side[name].items():
            left[pool] -= size
    return len(chosen) <= limit and min(left.values(), default=0) >= 0


def _extended(
    side: Mapping[str, Sizes], start: Mapping[int, int], chosen: tuple[str, ...], kept: int, limit: int
) -> tuple[str, ...]:
    """The set with everything that still fits beside it."""
    left, names = dict(start), list(chosen)
    for name in chosen[kept:]:
        for pool, size in side[name].items():
            left[pool] -= size
    for name, sizes in side.items():
        if name not in names and len(names) < limit and fits(sizes, left):
            names.append(name)
            left = {pool: rest - sizes.get(pool, 0) for pool, rest in left.items()}
    return tuple(sorted(names))


def _fill(
    side: Mapping[str, Sizes], start: Mapping[int, int], pool: int, limit: int, kept: Sequence[str]
) -> tuple[str, ...]:
    """At most `limit` models with the largest sum that one pool holds; other pools count where all ask them alike."""
    if limit <= 0:
        return ()
    free = [name for name in side if name not in kept and side[name].get(pool, 0) >= MIB]
    wide = [name for name in free if len(_memory(side[name])) > 1]
    alone = [name for name in free if name not in set(wide)]
    alike = len({tuple(sorted(_memory(side[name]))) for name in wide}) <= 1 and all(
        side[name][other] == side[name][pool] for name in wide for other in _memory(side[name])
    )
    first = min([start[pool], *(start[other] for name in wide if alike for other in _memory(side[name]))])
    sums = _Sums(_layers(side, free, start[pool], pool, limit))
    for names, cap in ((wide, first), (alone, start[pool])):
        mask = (1 << (max(0, cap) // MIB + 1)) - 1
        for name in names:
            sums.add(name, side[name][pool] // MIB, mask)
            if sums.reaches(start[pool] // MIB):
                return sums.best()
    return sums.best()


def _memory(sizes: Sizes) -> Sequence[int]:
    return [pool for pool in sizes if pool >= HOST]


def _layers(side: Mapping[str, Sizes], free: Sequence[str], room: int, pool: int, limit: int) -> int:
    """How many models to count; 0 where more never fit, or where counting would take too long."""
    left, count = room, 0
    for size in sorted(side[name][pool] for name in free):
        left -= size
        count += left >= 0
    return limit if 0 <= limit < count and limit * len(free) <= STEPS else 0


class _Sums:
    """All sums of the models added so far, by number of models where that is counted: bit n of a layer is the sum n."""

    def __init__(self, layers: int) -> None:
        self._layers = [1, *[0] * layers]
        self._from = [(at - 1, at) for at in range(layers, 0, -1)] or [(0, 0)]
        self._log: list[tuple[str, int, int, int]] = []

    def add(self, name: str, size: int, mask: int) -> None:
        """Every sum with and without one more model. What was not reached before is remembered with its model."""
        for source, layer in self._from:
            new = (self._layers[source] << size) & mask & ~self._layers[layer]
            if new:
                self._layers[layer] |= new
                self._log.append((name, size, layer, new))

    def reaches(self, total: int) -> bool:
        """True when a set has this very sum, and no better one can come."""
        return any(layer >> total & 1 for layer in self._layers)

    def best(self) -> tuple[str, ...]:
        """The models of the largest sum, fewest first: each sum was first reached by models added before."""
        total = max(layer.bit_length() for layer in self._layers) - 1
        layer = next(at for at, sums in enumerate(self._layers) if sums.bit_length() - 1 == total)
        names, counted = [], len(self._layers) > 1
        for name, size, reached, new in reversed(self._log):
            if total and reached == layer and new >> total & 1:
                names.append(name)
                total -= size
                layer -= counted
        return tuple(names)
