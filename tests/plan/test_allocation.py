"""Groups that divide the memory of a profile, and what follows for the launch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.diagnostics.model import Diagnostic
from imageworks.model.loaded import Loaded
from imageworks.model.lock import LockedModel
from imageworks.plan.allocation import divide
from imageworks.plan.ir import MIB, Plan, PlannedModel
from imageworks.plan.resolve import resolve

Read = Callable[..., Loaded]
Known = Callable[..., LockedModel]
One = Callable[..., Diagnostic]
FOUR = {"a": 60, "b": 50, "c": 40, "d": 30}


def stack(allocation: str, *, members: Mapping[str, str] | None = None, more: str = "", gpus: int = 1) -> str:
    """Four vLLM models with priorities 6:5:4:3 on GPUs with a budget of 90000 MiB each."""
    extra = members or {}
    models = "".join(
        f"  {name}: {{backend: vllm, source: {{path: o/{name}}}, context: 8192, concurrency: 1, "
        f"roles: {{chat: {priority}}}{extra.get(name, '')}}}\n"
        for name, priority in FOUR.items()
    )
    return f"""
version: 1
profiles:
  card:
    match: {{gpus: {gpus}, vram: ">=91024MiB"}}
    headroom: 1024MiB
    max_concurrent_models: 4
    strategy: concurrent_full
models:
{models}groups:
  g: {{models: [a, b, c, d], profiles: [card], allocation: {allocation}}}
{more}"""


def planned(loaded: Loaded, profile: str = "card") -> Plan:
    plans, findings = resolve(loaded)
    assert not [item for item in findings if item.is_error], findings
    return next(plan for plan in plans if plan.profile == profile)


def mib(plan: Plan) -> dict[str, int]:
    return {model.id: model.memory.total // MIB for model in plan.models if model.placement.kind == "gpu"}


def flag(model: PlannedModel, name: str) -> str:
    assert model.launch is not None
    value = next(item.value for item in model.launch.flags if item.name == name)
    assert value is not None
    return value


@pytest.mark.parametrize(
    ("allocation", "shares"),
    [
        ("balanced", {"a": 22500, "b": 22500, "c": 22500, "d": 22500}),
        ("priority", {"a": 30000, "b": 25000, "c": 20000, "d": 15000}),
    ],
)
def test_four_models_divide_90000_mib(read: Read, known: Known, allocation: str, shares: dict[str, int]) -> None:
    plan = planned(read(stack(allocation), **{name: known(8) for name in FOUR}))
    assert mib(plan) == shares
    kv = {model.id: int(flag(model, "--kv-cache-memory-bytes")) for model in plan.models}
    fixed = (8 + 0.6 + 0.9) * 1024  # weights, activations, CUDA and graphs
    assert all(abs(kv[name] / MIB - (shares[name] - fixed)) < 1 for name in FOUR)
    assert [flag(model, "--gpu-memory-utilization") for model in plan.models] == [
        f"{int(size * 1000 / 91024) / 1000:.3f}" for size in shares.values()
    ]


def test_custom_is_the_declared_sums_and_more_than_the_budget_is_refused(read: Read, one: One) -> None:
    totals = dict(zip(FOUR, ("40000MiB", "30000MiB", "15000MiB", "5000MiB"), strict=True))
    declared = {name: f', vram: {{total: {size}, because: "measured"}}' for name, size in totals.items()}
    plan = planned(read(stack("custom", members=declared)))
    assert mib(plan) == {"a": 40000, "b": 30000, "c": 15000, "d": 5000}
    for allocation in ("custom", "balanced", "priority"):
        above = {**declared, "d": ', vram: {total: 5001MiB, because: "measured"}'}
        assert one(read(stack(allocation, members=above)), "IW411").message == "group g does not fit card"


def test_a_model_that_needs_more_than_its_share_gets_its_need_and_the_others_divide_the_rest(
    read: Read, known: Known
) -> None:
    large = {"a": ', vram: {total: 60000MiB, because: "measured"}'}
    plan = planned(read(stack("balanced", members=large), **{name: known(2) for name in FOUR}))
    assert mib(plan) == {"a": 60000, "b": 10000, "c": 10000, "d": 10000}


def test_a_range_grows_into_the_share(read: Read, known: Known) -> None:
    ranged = stack("balanced").replace("context: 8192", "context: {at_least: 1024, up_to: 262144}")
    plan = planned(read(ranged, **{name: known(8) for name in FOUR}))
    model = plan.models[0]
    # 22500 MiB - 8192 - 614 - 922 = 12772 MiB of cache, of 144 KiB a token
    assert model.context == 12772 * 1024 // 144 // 256 * 256
    assert "21.97 GiB are its share of group g (balanced)" in model.context_why


def test_what_an_engine_cannot_use_stays_free_for_the_model(read: Read, known: Known) -> None:
    text = stack("balanced").replace("backend: vllm, source: {path: o/a}", "backend: llamacpp, source: {path: a.gguf}")
    plan = planned(read(text, **{name: known(8) for name in FOUR}))
    model = plan.models[0]
    assert model.memory.total == 22500 * MIB
    assert (model.memory.terms[-1].name, model.memory.terms[-1].origin) == ("group share", "derived")
    assert "KV cache" in [term.name for term in model.memory.terms]
    assert flag(model, "--ctx-size") == "8192"


def test_a_declared_cache_does_not_grow(read: Read, known: Known) -> None:
    plan = planned(read(stack("balanced", members={"a": ", vram: {kv: 4GiB}"}), **{name: known(8) for name in FOUR}))
    assert flag(plan.models[0], "--kv-cache-memory-bytes") == str(4 << 30)
    assert plan.models[0].memory.total == 22500 * MIB


def test_a_range_without_a_price_of_a_token_stays_at_its_least(read: Read, known: Known) -> None:
    text = stack("balanced", members={"a": ', vram: {total: 8GiB, because: "measured"}'})
    ranged = text.replace("context: 8192", "context: {at_least: 1024, up_to: 4096}")
    model = planned(read(ranged, **{name: known(8) for name in FOUR})).models[0]
    assert (model.context, model.memory.total) == (1024, 22500 * MIB)
    assert "vram.total is declared" in model.context_why


def test_a_group_divides_only_what_others_leave(read: Read, known: Known) -> None:
    text = stack("balanced").replace("max_concurrent_models: 4", "max_concurrent_models: 5")
    other = "  z: {backend: vllm, source: {path: o/z}, context: 8192, concurrency: 1}\ngroups:\n"
    plan = planned(read(text.replace("groups:\n", other), **{name: known(8) for name in (*FOUR, "z")}))
    sizes = mib(plan)
    room = 90000 - sizes["z"] - 1
    assert {sizes[name] for name in FOUR} <= {room // 4, room // 4 + 1}
    assert sum(sizes.values()) <= 90000


def test_on_two_gpus_each_divides_its_own(read: Read, known: Known) -> None:
    text = stack("balanced", gpus=2)
    plan = planned(read(text, **{name: known(8) for name in FOUR}))
    assert mib(plan) == {"a": 45000, "b": 45000, "c": 45000, "d": 45000}


def test_a_split_model_takes_the_same_on_each_gpu(read: Read, known: Known) -> None:
    text = stack("balanced", gpus=2).replace(
        "strategy: concurrent_full", "strategy: tensor_parallel_or_distributed\n    tensor_parallel_above: 20GiB"
    )
    plan = planned(read(text, a=known(40), b=known(2), c=known(2), d=known(2)))
    shares = {model.id: model.mib_per_slot() for model in plan.models}
    assert shares["a"] == {0: 30000, 1: 30000}  # three share GPU 0, two share GPU 1: the tighter one decides
    assert shares["b"] == shares["d"] == {0: 30000}
    assert shares["c"] == {1: 45000}


def test_two_groups_cannot_divide_one_profile(read: Read, known: Known, one: One) -> None:
    more = "  h: {models: [a, b], profiles: [card], allocation: priority}\n"
    found = one(read(stack("balanced", more=more), **{name: known(8) for name in FOUR}), "IW419")
    assert found.message == "groups g and h both divide the memory of card"
    assert found.primary is not None
    assert found.primary.text == "divides it again"
    (sums,) = found.sums
    assert [term.name for term in sums.needed] == ["group g", "group h"]
    assert all(term.span is not None for term in (*sums.needed, *sums.available))
    assert sums.excess == sum(term.amount for term in sums.available)  # it would be given away twice


models = st.dictionaries(
    st.sampled_from("abcdefgh"), st.tuples(st.integers(1, 100), st.integers(0, 30_000)), min_size=1
)


@given(models, st.integers(0, 100_000))
def test_shares_never_exceed_the_room_nor_fall_below_a_need(members: dict[str, tuple[int, int]], room: int) -> None:
    weights = {name: weight for name, (weight, _) in members.items()}
    least = {name: need * MIB for name, (_, need) in members.items()}
    given_shares = divide(room * MIB, weights, least)
    assert given_shares.keys() == weights.keys()
    assert all(given_shares[name] >= least[name] and given_shares[name] % MIB == 0 for name in weights)
    if sum(least.values()) <= room * MIB:
        assert sum(given_shares.values()) <= room * MIB
        assert sum(given_shares.values()) > (room - len(weights)) * MIB or given_shares == least
    else:
        assert given_shares == least
