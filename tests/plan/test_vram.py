"""The memory formula, against figures that were worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.model.loaded import Loaded
from imageworks.model.lock import LockedModel
from imageworks.plan.facts import Facts, gather
from imageworks.plan.ir import GIB, MIB, Memory, Plan
from imageworks.plan.text import gib
from imageworks.plan.vram import Shape, asleep, asleep_host, memory

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


Terms = list[tuple[str, int, str, str]]
ON_TWO = ", on each of 2 GPUs"
CONTEXT, GRAPHS, ACTIVATIONS = 483_183_820, 483_183_820, 644_245_094
BUFFERS, VISION = 268_435_456, 590_558_003
ENTRY = "version: 1\nmodels:\n  m: {{backend: {backend}, source: {{path: org/m}}, capabilities: [{what}], context: 8192{more}}}\n"


def of(read: Callable[..., Loaded], backend: str, what: str, more: str = "", **lock: LockedModel) -> Facts:
    return gather(read(ENTRY.format(backend=backend, what=what, more=more), **lock))["m"]


def told(facts: Facts, shape: Shape) -> Terms:
    return [(term.name, term.bytes, term.origin, term.why) for term in memory(facts, shape).terms]


def weights(gib: int, *, origin: str = "declared", why: str = "as declared") -> tuple[str, int, str, str]:
    return ("weights", gib * GIB, origin, why)


def test_every_term_of_vllm_says_its_size_and_why(
    read: Callable[..., Loaded], known: Callable[..., LockedModel]
) -> None:
    facts = of(read, "vllm", "chat, vision", m=known(4))
    cache = "8191 tokens x 3 x 144 KiB, and 1 block of 16 that vLLM keeps"
    assert told(facts, Shape("gpu", 2, 8191, 3)) == [
        weights(4, origin="lock", why="the files"),
        ("KV cache", (3 * 8192 + 16) * 144 * KIB, "derived", cache),
        ("activations", 2 * ACTIVATIONS, "estimated", f"peak of a forward pass{ON_TWO}"),
        ("CUDA + graphs", 2 * (CONTEXT + GRAPHS), "estimated", f"driver context and captured graphs{ON_TWO}"),
        ("vision encoder", VISION, "estimated", "activations over one large image"),
    ]
    assert [why for *_, why in told(facts, Shape("gpu", 1, 8191, 3))][2:4] == [
        "peak of a forward pass",
        "driver context and captured graphs",
    ]


@pytest.mark.parametrize(("gpus", "where"), [(1, ""), (2, ON_TWO)])
def test_without_graphs_or_a_cache_only_the_driver_is_counted(
    read: Callable[..., Loaded], known: Callable[..., LockedModel], gpus: int, where: str
) -> None:
    eager = of(read, "vllm", "chat", ", vllm: {enforce-eager: true}", m=known(4))
    assert told(eager, Shape("gpu", gpus, 8192, 1))[-1] == (
        ("CUDA", gpus * CONTEXT, "estimated", f"driver context{where}; enforce-eager, no graphs")
    )
    pooling = of(read, "vllm", "embedding", ", vram: {weights: 2GiB}")
    assert told(pooling, Shape("gpu", gpus, 8192, 1)) == [
        weights(2),
        ("CUDA", gpus * CONTEXT, "estimated", f"driver context{where}; no decode graphs"),
    ]


def test_every_term_of_llama_cpp_says_its_size_and_why(read: Callable[..., Loaded]) -> None:
    facts = of(read, "llamacpp", "chat", ", vram: {weights: 2GiB, kv: 3GiB}")
    on_cpu = [
        weights(2),
        ("KV cache", 3 * GIB, "declared", "as declared"),
        ("compute buffers", BUFFERS, "estimated", "at the default batch of 512 tokens"),
    ]
    assert told(facts, Shape("cpu", 0, 8192, 2)) == on_cpu
    driver = ("CUDA", 2 * CONTEXT, "estimated", "driver context")
    assert told(facts, Shape("gpu", 2, 8192, 2)) == [*on_cpu[:2], driver, on_cpu[2]]


def test_the_cache_of_llama_cpp_has_no_block_of_its_own(
    read: Callable[..., Loaded], known: Callable[..., LockedModel]
) -> None:
    net = {"family": "llama", "layers": 30, "kv_heads": 3, "head_dim": 64, "context_limit": 8192}
    (cache,) = told(of(read, "llamacpp", "chat", m=known(1, net)), Shape("cpu", 0, 8191, 3))[1:2]
    assert cache == ("KV cache", 3 * 8191 * 23040, "derived", "8191 tokens x 3 x 22.5 KiB")


def test_nothing_is_counted_for_a_remote_model_or_an_unknown_one(read: Callable[..., Loaded]) -> None:
    declared = of(read, "vllm", "chat", ", vram: {weights: 2GiB, kv: 3GiB}")
    assert memory(declared, Shape("remote", 0, 8192, 1)) == Memory()
    assert memory(of(read, "vllm", "chat"), Shape("gpu", 1, 8192, 1)) == Memory()


def test_a_total_without_its_reason_is_called_declared(read: Callable[..., Loaded]) -> None:
    assert told(of(read, "vllm", "chat", ", vram: {total: 5GiB}"), Shape("gpu", 1, 8192, 1)) == [
        ("total", 5 * GIB, "declared", "declared")
    ]


SPARE = ("group share", GIB, "derived", "the rest of what the group's allocation gives it")


def with_share(facts: Facts, spare: int) -> tuple[Terms, Terms]:
    """The terms without a share, and with one that is `spare` bytes more than they need."""
    plain = Shape("gpu", 1, 8192, 1)
    need = memory(facts, plain).total
    return told(facts, plain), told(facts, Shape("gpu", 1, 8192, 1, need + spare))


def test_vllm_keeps_the_rest_of_its_share_in_its_cache(
    read: Callable[..., Loaded], known: Callable[..., LockedModel]
) -> None:
    before, after = with_share(of(read, "vllm", "chat, vision", m=known(4)), GIB)
    name, size, origin, why = before[1]
    assert after == [before[0], (name, size + GIB, origin, f"{why}, and 1.00 GiB of the group's share"), *before[2:]]


@pytest.mark.parametrize(
    ("backend", "what", "vram"),
    [
        ("llamacpp", "chat", "{weights: 2GiB, kv: 3GiB}"),
        ("vllm", "chat", "{weights: 2GiB, kv: 3GiB}"),
        ("vllm", "chat", "{total: 5GiB}"),
        ("vllm", "embedding", "{weights: 2GiB}"),
    ],
)
def test_elsewhere_the_rest_of_the_share_stays_free(
    read: Callable[..., Loaded], backend: str, what: str, vram: str
) -> None:
    before, after = with_share(of(read, backend, what, f", vram: {vram}"), GIB)
    assert after == [*before, SPARE]


def test_llama_cpp_with_a_known_network_leaves_its_share_free_too(
    read: Callable[..., Loaded], known: Callable[..., LockedModel]
) -> None:
    before, after = with_share(of(read, "llamacpp", "chat", m=known(4)), GIB)
    assert after == [*before, SPARE]


@pytest.mark.parametrize(("spare", "terms"), [(-1, 0), (0, 0), (1, 1)])
def test_a_share_counts_from_the_first_byte_beyond_the_need(
    read: Callable[..., Loaded], spare: int, terms: int
) -> None:
    before, after = with_share(of(read, "llamacpp", "chat", ", vram: {weights: 2GiB, kv: 3GiB}"), spare)
    assert len(after) - len(before) == terms
    assert Shape("gpu", 1, 8192, 1).share == 0


SLEEPER = "version: 1\nmodels:\n  a: {backend: vllm, source: {path: org/a}, context: 4096, vram: {weights: 4GiB, kv: 2GiB}%s}\n"
TOTAL = "version: 1\nmodels:\n  a: {backend: vllm, source: {path: org/a}, vram: {total: 6GiB, because: measured}, sleep: level1}\n"


@pytest.mark.parametrize(
    ("gpus", "why"),
    [(1, "context and graphs of a sleeping vLLM"), (3, "context and graphs of a sleeping vLLM, on each of 3 GPUs")],
)
def test_what_a_sleeper_keeps_on_its_gpus(read: Callable[..., Loaded], gpus: int, why: str) -> None:
    found = gather(read(SLEEPER % ", sleep: level1"))["a"]
    (term,) = asleep(found, gpus).terms
    assert (term.name, term.bytes, term.origin, term.why) == ("asleep", gpus * (11 * GIB // 10), "estimated", why)


@pytest.mark.parametrize(
    ("text", "size"),
    [(SLEEPER % ", sleep: level1", 4 * GIB), (SLEEPER % ", sleep: level2", 0), (SLEEPER % "", 0), (TOTAL, 6 * GIB)],
)
def test_what_a_sleeper_keeps_in_host_memory(read: Callable[..., Loaded], text: str, size: int) -> None:
    assert asleep_host(gather(read(text))["a"]) == size


def test_nothing_is_kept_of_weights_that_nobody_knows(read: Callable[..., Loaded]) -> None:
    text = "version: 1\nmodels:\n  a: {backend: vllm, source: {path: org/a}, sleep: level1}\n"
    assert asleep_host(gather(read(text))["a"]) == 0
