"""Where models run, and why some are left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from imageworks.model.loaded import Loaded
from imageworks.model.lock import LockedModel
from imageworks.plan.ir import Plan, PlannedModel, Unplaced
from imageworks.plan.resolve import resolve

Read = Callable[..., Loaded]
Known = Callable[..., LockedModel]

HEAD = """
version: 1
profiles:
  card: {match: {gpus: 1, vram: ">=15GiB", compute: ">=COMPUTE"}, headroom: 1GiB, host_memory: 4GiB}
models:
"""


def head(compute: str = "8.0") -> str:
    return HEAD.replace("COMPUTE", compute)


def left_out(loaded: Loaded, profile: str, model: str) -> Unplaced:
    plan = next(plan for plan in resolve(loaded)[0] if plan.profile == profile)
    return next(item for item in plan.unplaced if item.id == model)


def test_the_largest_model_is_left_out_of_the_16_gb_plan_with_its_sum(shipped: Mapping[str, Plan]) -> None:
    (item,) = shipped["constrained_16gb"].unplaced
    assert (item.id, item.code) == ("gpt-oss-20b", "IW410")
    assert item.reason == (
        "15.9 GiB needed, 13.7 usable on 1 GPU of constrained_16gb: "
        "weights 12.85 + KV cache 1.50 + activations 0.60 + CUDA + graphs 0.90"
    )


def test_auto_takes_the_gpu_if_all_of_it_fits_and_else_the_cpu(read: Read, known: Known) -> None:
    text = head() + "  m: {backend: llamacpp, source: {path: m.gguf}, context: 1024, concurrency: 1}\n"
    small, large = read(text, m=known(2)), read(text.replace("4GiB", "64GiB"), m=known(20))
    for loaded, kind in ((small, "gpu"), (large, "cpu")):
        plan = next(plan for plan in resolve(loaded)[0] if plan.profile == "card")
        assert plan.models[0].placement.kind == kind
    assert "cannot take all of it: 20." in plan.models[0].placement.why


def test_a_demanded_gpu_is_not_replaced_by_the_cpu(read: Read, known: Known) -> None:
    text = head() + "  m: {backend: llamacpp, source: {path: m.gguf}, placement: gpu}\n"
    assert left_out(read(text.replace("4GiB", "64GiB"), m=known(20)), "card", "m").code == "IW410"
    assert left_out(read(text, m=known(1)), "development", "m").code == "IW405"


def test_the_cpu_holds_host_memory_and_no_more(read: Read, known: Known) -> None:
    text = head() + "  m: {backend: llamacpp, source: {path: m.gguf}, placement: cpu}\n"
    item = left_out(read(text, m=known(4)), "card", "m")
    assert item.code == "IW412"
    assert "4.0 usable on host_memory of card" in item.reason


@pytest.mark.parametrize(
    ("quantization", "compute", "fits"), [("mxfp4", "7.5", False), ("mxfp4", "8.0", True), ("awq", "7.5", True)]
)
def test_vllm_needs_hardware_for_some_quantizations(
    read: Read,
    known: Known,
    quantization: str,
    compute: str,
    fits: bool,  # noqa: FBT001 - a table's column
) -> None:
    text = head(compute) + f"  m: {{backend: vllm, source: {{path: o/m}}, quantization: {quantization}}}\n"
    plan = next(plan for plan in resolve(read(text, m=known(2)))[0] if plan.profile == "card")
    assert bool(plan.models) is fits
    if not fits:
        assert "needs compute capability 8.0; card starts at 7.5" in plan.unplaced[0].reason


def test_a_declared_cache_too_small_for_one_request_is_refused(read: Read, known: Known) -> None:
    text = head() + "  m: {backend: vllm, source: {path: o/m}, context: 8192, vram: {weights: 2GiB, kv: 1GiB}}\n"
    assert left_out(read(text, m=known()), "card", "m").reason == (
        "the declared KV cache of 1.00 GiB holds 7281 tokens, a request may have 8192"
    )


def test_unknown_facts_leave_a_model_out_everywhere_with_one_warning(
    read: Read, codes: Callable[..., tuple[str, ...]]
) -> None:
    loaded = read(
        "version: 1\nmodels:\n  m: {backend: llamacpp, source: {path: m.gguf}, roles: {chat: 50}}\nroles:\n  chat: {requires: [chat]}\n"
    )
    assert codes(loaded) == ("IW421",)
    plans, findings = resolve(loaded)
    assert findings[0].severity == "warning"
    assert {plan.unplaced[0].code for plan in plans} == {"IW421"}


def two_cards(models: str) -> str:
    return f"""
version: 1
profiles:
  pair:
    match: {{gpus: 2, vram: ">=15GiB"}}
    headroom: 1GiB
    max_concurrent_models: 3
    strategy: tensor_parallel_or_distributed
    tensor_parallel_above: 10GiB
models:
{models}"""


def test_heavy_weights_are_split_and_the_others_spread(
    read: Read, known: Known, placed: Callable[..., PlannedModel]
) -> None:
    models = "".join(
        f"  {name}: {{backend: vllm, source: {{path: o/{name}}}, context: 1024}}\n" for name in ("a", "b", "c", "d")
    )
    loaded = read(two_cards(models), a=known(11), b=known(8), c=known(5), d=known(1))
    slots = {name: placed(loaded, "pair", name).placement.slots for name in ("a", "b", "c", "d")}
    assert slots == {"a": (0, 1), "b": (0,), "c": (1,), "d": (1,)}


def test_a_split_needs_room_on_each_gpu(read: Read, known: Known) -> None:
    loaded = read(two_cards("  a: {backend: vllm, source: {path: o/a}, context: 1024}\n"), a=known(27))
    assert "28.0 usable on 2 GPUs of pair" in left_out(loaded, "pair", "a").reason


def test_a_remote_model_takes_no_memory_and_no_port(read: Read, placed: Callable[..., PlannedModel]) -> None:
    loaded = read('version: 1\nmodels:\n  far: {backend: openai, url: "http://10.0.0.2:9000"}\n')
    model = placed(loaded, "development", "far")
    assert (model.placement.kind, model.memory.total, model.port, model.launch) == ("remote", 0, None, None)
    assert model.url == "http://10.0.0.2:9000"
