"""Which models can be loaded together: derived, proved, and agreed on by the scheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageworks.diagnostics.model import Diagnostic, Unit
from imageworks.model.loaded import Loaded
from imageworks.model.lock import LockedModel
from imageworks.plan.company import HOST, Pools, Sizes
from imageworks.plan.digest import digest
from imageworks.plan.ir import MIB, Plan, Residents
from imageworks.plan.residents import MOST, Table, residents, violation
from imageworks.plan.resolve import resolve
from imageworks.runtime.events import Adopt, Arrive, Finish, Ready, Start, Stop
from imageworks.runtime.residency import Machine, machine
from imageworks.runtime.scheduler import initial, step
from imageworks.targets.routes import table as route_table

Read = Callable[..., Loaded]
Known = Callable[..., LockedModel]
One = Callable[..., Diagnostic]


@pytest.fixture(scope="session")
def uncapped(shipped_loaded: Loaded) -> Plan:
    """The shipped stack on constrained_16gb, without a bound on the number of models."""
    stack = shipped_loaded.stack
    profile = stack.profiles["constrained_16gb"].model_copy(
        update={"max_concurrent_models": 9, "strategy": "concurrent_limited"}
    )
    loaded = dataclasses.replace(
        shipped_loaded, stack=stack.model_copy(update={"profiles": {**stack.profiles, "constrained_16gb": profile}})
    )
    return next(plan for plan in resolve(loaded)[0] if plan.profile == "constrained_16gb")


def test_without_a_cap_two_vision_models_may_and_two_may_not_stay_together(uncapped: Plan) -> None:
    together = [set(item.models) for item in uncapped.residents.sets]
    assert any({"qwen2.5-vl-7b-q4", "siglip-large"} <= names for names in together)
    pair = ("pixtral-12b-q4", "qwen2.5-vl-7b-q4")
    assert not any(set(pair) <= names for names in together)
    refusal = next(item for item in uncapped.residents.refused if item.models == pair)
    assert refusal.reason == "pixtral-12b-q4 12.04 + qwen2.5-vl-7b-q4 8.09 = 20.13 GiB > 13.70 of GPU 0"


def test_one_at_a_time_every_model_is_a_set_of_its_own(shipped: Mapping[str, Plan]) -> None:
    plan = shipped["constrained_16gb"]
    on_gpu = [item.models for item in plan.residents.sets if item.pool == "GPU 0"]
    assert on_gpu == [(model.id,) for model in sorted(plan.models, key=lambda m: m.id) if model.placement.kind == "gpu"]
    assert plan.residents.refused == ()  # the number forbids it, not the memory
    assert [item.models for item in plan.residents.sets if item.pool == "host memory"] == [
        ("smollm2-135m", "smollm2-135m-long")
    ]


def test_what_is_kept_is_part_of_every_set_on_a_gpu(shipped: Mapping[str, Plan]) -> None:
    plan = shipped["generous_80gb"]
    assert plan.policy.resident
    on_gpu = [set(item.models) for item in plan.residents.sets if item.pool == "GPU 0"]
    assert len(on_gpu) == 3
    assert all(set(plan.policy.resident) < names for names in on_gpu)


def test_no_set_of_any_shipped_profile_exceeds_its_pool(shipped: Mapping[str, Plan]) -> None:
    for plan in shipped.values():
        assert plan.residents.sets
        assert not plan.residents.bound
        assert all(0 < item.used_mib <= item.room_mib for item in plan.residents.sets)


def held_together(book: Machine, names: tuple[str, ...]) -> bool:
    """Would the scheduler load these one after the other?"""
    free = {key: replace(item, resident=False, kept=False) for key, item in book.specs.items()}
    state, _ = step(initial(replace(book, specs=free)), Adopt({}), 0.0)
    for number, name in enumerate(names):
        state, effects = step(state, Arrive(str(number), (name,), 1e9), 1.0)
        if not any(isinstance(effect, Start) for effect in effects) or any(isinstance(e, Stop) for e in effects):
            return False
        state, _ = step(state, Ready(name), 1.0)
        state, _ = step(state, Finish(str(number)), 1.0)
    return True


def test_the_scheduler_agrees_with_every_set_and_every_refusal(shipped: Mapping[str, Plan], uncapped: Plan) -> None:
    for plan in (*shipped.values(), uncapped):
        book = machine(route_table(plan, tuple(shipped.values())))
        for item in plan.residents.sets:
            assert held_together(book, item.models)
            others = book.specs.keys() - set(item.models)
            on_host = item.pool == "host memory"
            rivals = [name for name in others if bool(book.specs[name].host_mib) == on_host]
            assert not any(held_together(book, (*item.models, name)) for name in rivals)
        assert not any(held_together(book, item.models) for item in plan.residents.refused)


sizes = st.dictionaries(
    st.sampled_from("abcdefghij"),
    st.one_of(
        st.integers(1, 9).map(lambda size: {HOST: size * MIB}),
        st.integers(1, 9).map(lambda size: {0: size * MIB}),
        st.integers(1, 9).map(lambda size: {1: size * MIB}),
        st.integers(1, 9).map(lambda size: {0: size * MIB, 1: size * MIB}),
    ),
    max_size=8,
)


def by_hand(table: Table, kept: set[str]) -> set[tuple[str, ...]]:
    """The largest sets of both sides, by looking at every subset."""
    found = set()
    for on_host in (False, True):
        names = sorted(table.side(on_host=on_host))
        fixed = kept & set(names)
        able = [
            frozenset(some)
            for count in range(len(names) + 1)
            for some in combinations(names, count)
            if fixed <= set(some) and violation(table, some) is None
        ]
        largest = [one for one in able if not any(one < other for other in able)]
        found |= {tuple(sorted(one)) for one in largest if names}
    return found


@settings(max_examples=300, deadline=None)
@given(sizes, st.integers(9, 20), st.integers(1, 5), st.booleans(), st.data())
def test_the_sets_are_exactly_the_largest_ones(
    models: dict[str, Sizes],
    room: int,
    at_once: int,
    counted_on_host: bool,  # noqa: FBT001 - drawn
    data: st.DataObject,
) -> None:
    table = Table(models, Pools({0: room * MIB, 1: room * MIB, HOST: room * MIB}), at_once, counted_on_host)
    kept = data.draw(st.sets(st.sampled_from(sorted(models)), max_size=2)) if models else set()
    if violation(table, kept) is None:
        found = residents(table, sorted(kept))
        wanted = by_hand(table, kept)
        if found.bound:
            assert len(wanted) > MOST
        else:
            assert {item.models for item in found.sets} == wanted


@given(sizes, st.integers(9, 20), st.integers(1, 5))
def test_a_violation_is_real_and_minimal(models: dict[str, Sizes], room: int, at_once: int) -> None:
    table = Table(models, Pools({0: room * MIB, 1: room * MIB, HOST: room * MIB}), at_once, counted_on_host=False)
    found = violation(table, models)
    if found is not None:
        assert violation(table, found.models) is not None
        for name in found.models:
            assert violation(table, set(found.models) - {name}) is None


def test_too_many_sets_are_bounded_and_the_fullest_is_shown() -> None:
    models = {f"m{index:04}": {0: (index % 7 + 1) * 1000 * MIB} for index in range(1000)}
    found = residents(Table(models, Pools({0: 20_000 * MIB, HOST: 0}), 4, counted_on_host=False), ())
    (shown,) = found.sets
    assert shown.used_mib == 20_000
    assert found.bound == (
        "more than 64 sets, so they are not listed: none has more than 4 models, none leaves less than 0 MiB of a GPU; "
        "shown is the fullest of all"
    )
    assert len(found.refused) <= MOST


def test_a_thousand_models_that_all_fit_are_one_set() -> None:
    models = {f"m{index:04}": {HOST: MIB} for index in range(1000)}
    found = residents(Table(models, Pools({HOST: 1000 * MIB}), 1, counted_on_host=False), ())
    assert [len(item.models) for item in found.sets] == [1000]
    assert not found.bound


CARD = """
version: 1
profiles:
  card: {{match: {{gpus: 1, vram: ">=25GiB"}}, headroom: 1GiB, max_concurrent_models: {k}, strategy: concurrent_limited}}
models:
  a: {{backend: vllm, source: {{path: o/a}}, context: 1024, keep: pinned}}
  b: {{backend: vllm, source: {{path: o/b}}, context: 1024{keep}}}
  c: {{backend: vllm, source: {{path: o/c}}, context: 1024}}
{more}"""


def test_two_pinned_models_that_do_not_fit_together_are_refused_with_the_sum(
    read: Read, known: Known, one: One
) -> None:
    text = CARD.format(k=2, keep=", keep: pinned", more="")
    found = one(read(text, a=known(12), b=known(12), c=known(1)), "IW418")
    assert found.message == "a and b are kept loaded on card, and do not fit together"
    assert found.primary is not None
    assert found.primary.text == "27.6 GiB together, 24.0 usable"
    (sums,) = found.sums
    assert [(term.name, f"{term.amount / 2**30:.2f}") for term in sums.needed] == [("a", "13.78"), ("b", "13.78")]
    assert sums.excess == sum(term.amount for term in sums.needed) - 24 * 2**30
    assert found.primary.span.line == 6


def test_more_pinned_models_than_may_be_loaded_are_refused(read: Read, known: Known, one: One) -> None:
    text = CARD.format(k=1, keep=", keep: pinned", more="")
    found = one(read(text, a=known(2), b=known(2), c=known(1)), "IW418")
    assert found.primary is not None
    assert found.primary.text == "2 models, 1 at once"
    (sums,) = found.sums
    assert (sums.unit, sums.excess) == (Unit.MODELS, 1)
    assert [(term.name, term.amount, term.span and term.span.line) for term in sums.needed] == [
        ("a", 1, 6),
        ("b", 1, 7),
    ]
    assert [(term.name, term.amount, term.span and term.span.line) for term in sums.available] == [("at once", 1, 4)]


def test_two_that_are_kept_apart_are_no_sum(read: Read, known: Known, one: One) -> None:
    text = CARD.format(k=2, keep=", keep: pinned, coexist: {never: [a]}", more="")
    found = one(read(text, a=known(2), b=known(2), c=known(1)), "IW418")
    assert found.sums == ()


def test_a_group_must_fit_beside_what_is_pinned(read: Read, known: Known, one: One) -> None:
    text = CARD.format(k=3, keep="", more="groups:\n  g: {models: [b, c], profiles: [card]}\n")
    found = one(read(text, a=known(9), b=known(9), c=known(5)), "IW418")
    assert found.message == "group g does not fit card beside what is kept loaded"
    assert found.notes == ("the smallest set that does not fit: a, b and c",)


def test_residents_do_not_count_for_the_hash_of_a_plan(shipped: Mapping[str, Plan]) -> None:
    plan = shipped["roomy_40gb"]
    assert digest(dataclasses.replace(plan, residents=Residents())) == plan.hash


def test_when_the_search_ends_before_any_set_a_greedy_one_is_shown() -> None:
    models = {f"m{index:04}": {0: MIB} for index in range(4000)}
    found = residents(Table(models, Pools({0: 100 * MIB, HOST: 0}), 4000, counted_on_host=False), ())
    (shown,) = found.sets
    assert (len(shown.models), shown.used_mib) == (100, 100)
    assert found.bound


def test_at_most_64_refused_pairs_are_listed() -> None:
    models = {f"m{index:02}": {0: 6 * MIB} for index in range(20)}
    found = residents(Table(models, Pools({0: 10 * MIB, HOST: 0}), 20, counted_on_host=False), ())
    assert len(found.refused) == MOST
    assert len(found.sets) == 20
    assert not found.bound
