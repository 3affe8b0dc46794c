"""The fullest set is the fullest, and what bounds all sets bounds them: compared with looking at every subset."""

from __future__ import annotations

import time
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from imageworks.plan.company import HOST, Pools, Sizes
from imageworks.plan.fullest import fullest, most
from imageworks.plan.ir import MIB
from imageworks.plan.residents import Table, residents, violation

APART = HOST - 1


def on(*pools: int) -> st.SearchStrategy[Sizes]:
    return st.integers(1, 9).map(lambda size: dict.fromkeys(pools, size * MIB))


gpu_models = st.dictionaries(st.sampled_from("abcdefghij"), st.one_of(on(0), on(1), on(0, 1)), min_size=1, max_size=8)
odd_models = st.dictionaries(
    st.sampled_from("abcdefghij"), st.one_of(on(0), on(1, 2), on(0, 1), on(0, 1, 2)), min_size=1, max_size=8
).map(lambda models: {name: {**size, APART: 1} if name in "ab" else size for name, size in models.items()})


def reachable(table: Table, kept: tuple[str, ...]) -> list[tuple[str, ...]]:
    names = sorted(table.sizes)
    every = (some for count in range(len(names) + 1) for some in combinations(names, count))
    return [some for some in every if set(kept) <= set(some) and violation(table, some) is None]


def least_left(table: Table, sets: list[tuple[str, ...]]) -> int:
    used = {pool for sizes in table.sizes.values() for pool in sizes if pool >= HOST}
    lefts = (table.room.left(table.sizes[name] for name in some) for some in sets)
    return min(left[pool] for left in lefts for pool in used) // MIB


def tried(
    models: dict[str, Sizes], rooms: tuple[int, int], at_once: int, kept: set[str]
) -> tuple[Table, list[tuple[str, ...]]]:
    pools = Pools({0: rooms[0] * MIB, 1: rooms[1] * MIB, 2: rooms[0] * MIB, APART: 1, HOST: 0})
    table = Table(models, pools, at_once, counted_on_host=False)
    return table, reachable(table, tuple(kept))


@settings(max_examples=300, deadline=None)
@given(gpu_models, st.tuples(st.integers(9, 25), st.integers(9, 25)), st.integers(1, 6), st.data())
def test_with_models_on_one_gpu_or_on_all_it_is_always_proved(
    models: dict[str, Sizes], rooms: tuple[int, int], at_once: int, data: st.DataObject
) -> None:
    kept = data.draw(st.sets(st.sampled_from(sorted(models)), max_size=2))
    table, sets = tried(models, rooms, at_once, kept)
    if not sets:
        return
    found = fullest(table.side(on_host=False), table.room, at_once, sorted(kept))
    assert found.bound == least_left(table, sets)
    assert found.proved
    assert found.names in sets
    assert not any(set(found.names or ()) < set(other) for other in sets)
    assert least_left(table, [found.names or ()]) == found.bound


@settings(max_examples=300, deadline=None)
@given(odd_models, st.tuples(st.integers(9, 25), st.integers(9, 25)), st.integers(1, 6), st.data())
def test_whatever_the_sizes_the_bounds_hold_and_a_proved_set_is_real(
    models: dict[str, Sizes], rooms: tuple[int, int], at_once: int, data: st.DataObject
) -> None:
    kept = data.draw(st.sets(st.sampled_from(sorted(models)), max_size=2))
    table, sets = tried(models, rooms, at_once, kept)
    if not sets:
        return
    side = table.side(on_host=False)
    found = fullest(side, table.room, at_once, sorted(kept))
    assert found.bound <= least_left(table, sets)
    if found.proved:
        assert found.names in sets
        assert found.bound == least_left(table, sets)
    assert most(side, table.room, at_once, sorted(kept)) >= max(map(len, sets))


def test_the_fullest_of_many_is_one_that_taking_the_largest_first_misses() -> None:
    """Four at once of sizes 20 to 31: 31 + 26 + 20 + 20 is best; the largest first would take 31 + 31 + 31."""
    models = {f"m{index:02}": {0: (20 + index % 12) * MIB} for index in range(36)}
    found = residents(Table(models, Pools({0: 97 * MIB, HOST: 0}), 4, counted_on_host=False), ())
    (shown,) = found.sets
    assert (shown.used_mib, shown.room_mib) == (97, 97)
    assert found.bound.endswith("none leaves less than 0 MiB of a GPU; shown is the fullest of all")


def test_where_nothing_fills_the_gpu_the_bound_says_how_much_is_always_left() -> None:
    models = {f"m{index:03}": {0: 30 * MIB} for index in range(100)}
    found = residents(Table(models, Pools({0: 100 * MIB, HOST: 0}), 9, counted_on_host=False), ())
    assert "none has more than 3 models, none leaves less than 10 MiB of a GPU" in found.bound
    assert found.sets[0].used_mib == 90


def test_five_thousand_models_are_proved_in_seconds() -> None:
    models = {f"m{index:04}": {0: (4000 + index * 7 % 9001) * MIB} for index in range(5000)}
    table = Table(models, Pools({0: 90_112 * MIB, HOST: 0}), 5, counted_on_host=False)
    start = time.process_time()
    found = fullest(table.side(on_host=False), table.room, 5, ())
    assert found.proved
    assert time.process_time() - start < 5
