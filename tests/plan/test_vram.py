"""The memory formula, against figures that were worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.model.loaded import Loaded
from imageworks.model.lock import LockedModel
from imageworks.plan.facts import Facts, gather
from imageworks.plan.ir import GIB, MIB, Plan
from imageworks.plan.text import gib
from imageworks.plan.vram import Shape, memory

KIB = 1 << 10


@pytest.fixture(scope="session")
def facts(shipped_loaded: Loaded) -> Mapping[str, Facts]:
    return gather(shipped_loaded)


def sums(facts: Facts, shape: Shape) -> dict[str, str]:
    return {term.name: gib(term.bytes) for term in memory(facts, shape).terms}


def test_gpt_oss_on_a_16_gb_card_as_in_the_language_note(facts: Mapping[str, Facts]) -> None:
    assert sums(facts["gpt-oss-20b"], Shape("gpu", 1, 16384, 2)) == {
        "weights": "12.85",
        "KV cache": "1.50",
        "activations": "0.60",
        "CUDA + graphs": "0.90",
    }


def test_the_vision_group_as_in_the_language_note(facts: Mapping[str, Facts]) -> None:
    qwen3 = memory(facts["qwen3-vl-8b-fp8"], Shape("gpu", 1, 6144, 1)).total
    qwen25 = memory(facts["qwen2.5-vl-7b-q4"], Shape("gpu", 1, 8192, 2)).total
    florence = memory(facts["florence-2-large"], Shape("gpu", 1, 4096, 2)).total
    siglip = memory(facts["siglip-large"], Shape("gpu", 1, 64, 2)).total
    assert [f"{size / GIB:.1f}" for size in (qwen3, qwen25, florence, siglip)] == ["12.8", "8.1", "3.4", "3.4"]


@pytest.mark.parametrize(
    ("model", "kib"),
    [
        ("qwen3-vl-8b-fp8", 144),
        ("qwen2.5-vl-7b-q4", 56),
        ("pixtral-12b-q4", 160),
        ("gpt-oss-20b", 48),
        ("smollm2-135m", 22.5),
    ],
)
def test_bytes_of_a_token(facts: Mapping[str, Facts], model: str, kib: float) -> None:
    assert facts[model].kv_bytes_per_token == kib * KIB


def test_vllm_gets_one_block_more_than_its_requests_need(facts: Mapping[str, Facts]) -> None:
    terms = {term.name: term.bytes for term in memory(facts["qwen3-vl-8b-fp8"], Shape("gpu", 1, 6144, 2)).terms}
    assert terms["KV cache"] == (2 * 6144 + 16) * 144 * KIB


def test_a_context_between_two_blocks_is_rounded_up_for_each_request(facts: Mapping[str, Facts]) -> None:
    terms = {term.name: term.bytes for term in memory(facts["qwen3-vl-8b-fp8"], Shape("gpu", 1, 17, 3)).terms}
    assert terms["KV cache"] == (3 * 32 + 16) * 144 * KIB


def test_llama_cpp_on_the_cpu_needs_no_cuda(facts: Mapping[str, Facts]) -> None:
    on_cpu = memory(facts["smollm2-135m"], Shape("cpu", 0, 2048, 2))
    assert [term.name for term in on_cpu.terms] == ["weights", "KV cache", "compute buffers"]
    assert on_cpu.total == 98_362_432 + 4096 * 22.5 * KIB + 256 * MIB


def test_the_smolvlm_weights_hold_the_projector(facts: Mapping[str, Facts]) -> None:
    weights = facts["smolvlm-500m"].weights
    assert weights is not None
    assert weights.bytes == 436_806_912 + 108_783_360


def test_a_declared_total_replaces_the_sum_and_keeps_its_reason(facts: Mapping[str, Facts]) -> None:
    (term,) = memory(facts["florence-2-large"], Shape("gpu", 1, 4096, 2)).terms
    assert (term.bytes, term.origin) == (3500 * MIB, "declared")
    assert "measured" in term.why


def test_a_split_model_pays_the_overheads_on_each_gpu(facts: Mapping[str, Facts]) -> None:
    one, two = (memory(facts["gpt-oss-20b"], Shape("gpu", gpus, 16384, 2)).total for gpus in (1, 2))
    assert two - one == int(0.6 * GIB) + 2 * int(0.45 * GIB)


def test_estimates_are_labelled(shipped: Mapping[str, Plan]) -> None:
    terms = [term for plan in shipped.values() for model in plan.models for term in model.memory.terms]
    measured = {"weights", "KV cache", "total"}
    assert {term.name for term in terms if term.origin == "estimated"} == {term.name for term in terms} - measured


STACK = """
version: 1
models:
  big: {{backend: vllm, source: {{path: org/big}}, capabilities: [chat], vllm: {flags}, vram: {vram}}}
"""


def kv(loaded: Loaded) -> str:
    return sums(gather(loaded)["big"], Shape("gpu", 1, 8192, 1))["KV cache"]


def test_an_fp8_cache_takes_half(read: Callable[..., Loaded], known: Callable[..., LockedModel]) -> None:
    plain = read(STACK.format(flags="{}", vram="{weights: 4GiB}"), big=known())
    fp8 = read(STACK.format(flags="{kv-cache-dtype: fp8}", vram="{weights: 4GiB}"), big=known())
    assert (kv(plain), kv(fp8)) == ("1.13", "0.56")


def test_a_declared_cache_replaces_its_term_only(
    read: Callable[..., Loaded], known: Callable[..., LockedModel]
) -> None:
    loaded = read(STACK.format(flags="{}", vram="{weights: 4GiB, kv: 3GiB}"), big=known())
    assert kv(loaded) == "3.00"
    assert sums(gather(loaded)["big"], Shape("gpu", 1, 8192, 1))["weights"] == "4.00"


def test_eager_mode_captures_no_graphs(read: Callable[..., Loaded], known: Callable[..., LockedModel]) -> None:
    loaded = read(STACK.format(flags="{enforce-eager: true}", vram="{}"), big=known(4))
    assert sums(gather(loaded)["big"], Shape("gpu", 1, 8192, 1))["CUDA"] == "0.45"


@given(st.integers(1, 100_000), st.integers(1, 32), st.integers(0, 10_000), st.integers(0, 8))
def test_more_context_or_requests_never_need_less(
    facts: Mapping[str, Facts], context: int, many: int, longer: int, more: int
) -> None:
    for model in ("gpt-oss-20b", "smollm2-135m"):
        small = memory(facts[model], Shape("gpu", 1, context, many)).total
        assert small <= memory(facts[model], Shape("gpu", 1, context + longer, many + more)).total
