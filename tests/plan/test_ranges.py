"""Ranges become the largest numbers that fit beside the companions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from imageworks.model.loaded import Loaded
from imageworks.model.lock import LockedModel
from imageworks.plan.ir import MIB, Plan, PlannedModel
from imageworks.plan.resolve import resolve

Read = Callable[..., Loaded]
Known = Callable[..., LockedModel]
Placed = Callable[..., PlannedModel]


def stack(models: str, *, vram: str = "15GiB", at_once: int = 1, strategy: str = "load_unload", more: str = "") -> str:
    return f"""
version: 1
profiles:
  card: {{match: {{gpus: 1, vram: ">={vram}"}}, headroom: 1GiB, max_concurrent_models: {at_once}, strategy: {strategy}}}
models:
{models}{more}"""


def model(name: str, context: str = "{at_least: 1024, up_to: 65536}", concurrency: str = "1", more: str = "") -> str:
    return f"  {name}: {{backend: vllm, source: {{path: o/{name}}}, context: {context}, concurrency: {concurrency}{more}}}\n"


def test_alone_a_model_takes_the_whole_card(read: Read, known: Known, placed: Placed) -> None:
    found = placed(read(stack(model("a")), a=known(8)), "card", "a")
    # 14 - 8 - 0.6 - 0.9 = 4.5 GiB = 32768 tokens of 144 KiB, less vLLM's own block: the next multiple below
    assert found.context == 32768 - 256
    assert "14.00 usable - 9.64 at the least = 4.36 GiB left on GPU 0" in found.context_why


def test_context_comes_before_concurrency(read: Read, known: Known, placed: Placed) -> None:
    found = placed(
        read(stack(model("a", "{at_least: 1024, up_to: 8192}", "{at_least: 1, up_to: 9}")), a=known(8)), "card", "a"
    )
    assert (found.context, found.concurrency) == (8192, 3)
    assert "all of it fits" in found.context_why
    assert "the largest number that fits" in found.concurrency_why


def test_room_stays_for_the_largest_other_that_fits_beside(read: Read, known: Known, placed: Placed) -> None:
    text = stack(
        model("a") + model("b", "1024") + model("c", "1024") + model("d", "128"),
        vram="25GiB",
        at_once=2,
        strategy="concurrent_limited",
    )
    loaded = read(text, a=known(8), b=known(11), c=known(20), d=known(0.1))
    found = placed(loaded, "card", "a")
    assert "- 12.64 for b =" in found.context_why
    assert found.memory.total + placed(loaded, "card", "b").memory.total <= 24 * 2**30


def test_one_at_a_time_leaves_no_room_for_others(read: Read, known: Known, placed: Placed) -> None:
    alone, beside = stack(model("a")), stack(model("a") + model("b", "1024"))
    contexts = [placed(read(text, a=known(8), b=known(3)), "card", "a").context for text in (alone, beside)]
    assert contexts[0] == contexts[1]


def test_group_members_share_equally_what_is_left(read: Read, known: Known, placed: Placed) -> None:
    group = "groups:\n  g: {models: [a, b, c], profiles: [card]}\n"
    text = stack(
        model("a") + model("b") + model("c", "1024"), vram="41GiB", at_once=3, strategy="concurrent_full", more=group
    )
    loaded = read(text, a=known(8), b=known(8), c=known(8))
    a, b, c = (placed(loaded, "card", name) for name in ("a", "b", "c"))
    assert a.context == b.context
    assert c.context == 1024
    assert "shared equally by 2" in a.context_why
    assert 40 * 2**30 - 2 * 256 * 144 * 1024 < a.memory.total + b.memory.total + c.memory.total <= 40 * 2**30


def test_residents_leave_room_for_the_largest_model_that_comes_and_goes(shipped: Mapping[str, Plan]) -> None:
    for profile in ("generous_80gb", "generous_96gb"):
        plan = shipped[profile]
        kept = sum(model.memory.total for model in plan.models if model.id in plan.policy.resident)
        others = [item for item in plan.models if item.id not in plan.policy.resident and item.placement.kind == "gpu"]
        assert {"gpt-oss-20b", "pixtral-12b-q4"} < {item.id for item in others}
        assert all(kept + item.memory.total <= plan.devices[0].budget for item in others)


def test_residents_grow_first(shipped: Mapping[str, Plan]) -> None:
    context = {item.id: item.context for item in shipped["generous_80gb"].models}
    assert (context["qwen3-vl-8b-fp8"], context["gpt-oss-20b"]) == (32768, 41216)


def test_a_declared_total_leaves_a_range_at_its_least(read: Read, placed: Placed) -> None:
    more = ", vram: {total: 5GiB, because: measured}"
    found = placed(read(stack(model("a", more=more))), "card", "a")
    assert found.context == 1024
    assert "vram.total is declared" in found.context_why


def test_the_weights_own_limit_bounds_range_and_default(read: Read, known: Known, placed: Placed) -> None:
    net = {"family": "llama", "layers": 2, "kv_heads": 1, "head_dim": 64, "context_limit": 4096}
    wide = placed(read(stack(model("a")), a=known(1, net)), "card", "a")
    assert (wide.context, "own limit of 4096" in wide.context_why) == (4096, True)
    text = stack("  a: {backend: vllm, source: {path: o/a}}\n")
    assert placed(read(text, a=known(1, net)), "card", "a").context == 4096


weights = st.lists(st.integers(1, 12), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    sizes=weights,
    gib=st.integers(4, 60),
    at_once=st.integers(1, 4),
    strategy=st.sampled_from(["concurrent_limited", "concurrent_full"]),
    grouped=st.integers(0, 3),
)
def test_no_plan_exceeds_a_gpu(
    *, read: Read, known: Known, sizes: list[int], gib: int, at_once: int, strategy: str, grouped: int
) -> None:
    names = [f"m{index}" for index in range(len(sizes))]
    text = "".join(model(name, concurrency="{at_least: 1, up_to: 4}") for name in names)
    members = names[:grouped]
    more = f"groups:\n  g: {{models: [{', '.join(members)}], profiles: [card]}}\n" if members else ""
    loaded = read(
        stack(text, vram=f"{gib}GiB", at_once=at_once, strategy=strategy, more=more),
        **{name: known(size) for name, size in zip(names, sizes, strict=True)},
    )
    plans, findings = resolve(loaded)
    if not plans:
        assert any(item.code in {"IW406", "IW411"} for item in findings)
        return
    card = next(plan for plan in plans if plan.profile == "card")
    room = card.devices[0].budget // MIB
    needs = {item.id: item.mib_per_slot() for item in card.models}
    for item in card.models:
        assert needs[item.id].get(0, 0) <= room
        assert 1024 <= item.context <= 65536
        assert 1 <= item.concurrency <= 4
    kept = sum(needs[name].get(0, 0) for name in card.policy.resident)
    for item in card.models:
        if item.id not in card.policy.resident:
            assert kept + needs[item.id][0] <= room
    together = [name for name in members if name in needs]
    assert sum(needs[name][0] for name in together) <= room


@settings(max_examples=40, deadline=None)
@given(gib=st.integers(13, 60), more=st.integers(0, 30))
def test_a_larger_card_never_gets_a_shorter_context(read: Read, known: Known, gib: int, more: int) -> None:
    contexts = []
    for size in (gib, gib + more):
        (plan, _) = resolve(read(stack(model("a"), vram=f"{size}GiB"), a=known(10)))[0]
        contexts.append(plan.models[0].context)
    assert contexts[0] <= contexts[1]


def test_a_plan_in_whole_mib_fits_the_budget_in_whole_mib(shipped: Mapping[str, Plan]) -> None:
    for plan in shipped.values():
        for model_ in plan.models:
            for slot, mib in model_.mib_per_slot().items():
                assert mib <= plan.devices[slot].budget // MIB


def test_a_remote_model_keeps_the_lower_end(read: Read, placed: Placed) -> None:
    text = stack("  a: {backend: openai, url: 'https://h.example', context: {at_least: 1024, up_to: 4096}}\n")
    found = placed(read(text), "card", "a")
    assert found.context == 1024
    assert found.context_why.endswith("remote: the lower end")


def test_a_range_without_a_price_of_a_token_stays_at_its_least(read: Read, placed: Placed) -> None:
    more = ", capabilities: [iqa], vram: {weights: 1GiB}"
    found = placed(read(stack(model("a", "{at_least: 64, up_to: 512}", more=more))), "card", "a")
    assert (found.context, found.context_why.endswith("at_least: no cost of a token is known here")) == (64, True)
