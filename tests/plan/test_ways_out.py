"""What would make a model fit: every way is tried here by doing it, and compiling again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from imageworks.diagnostics.model import Applicability, Diagnostic, Fix, Unit
from imageworks.model.loaded import Loaded
from imageworks.model.lock import LockedModel
from imageworks.plan.resolve import resolve

Read = Callable[..., Loaded]
Known = Callable[..., LockedModel]
One = Callable[[Loaded, str], Diagnostic]

TEXT = """\
version: 1
profiles:
  card: {{match: {{gpus: 1, vram: ">={vram}GiB"}}, headroom: {headroom}GiB, host_memory: 4GiB}}
  wide: {{match: {{gpus: 1, vram: ">=99GiB"}}, headroom: 1GiB}}
models:
  m:
    backend: {backend}
    source: {{path: o/m{file}}}
    context: {context}
    concurrency: {concurrency}
    quantization: {quantization}
    keep: pinned
{more}"""


def stack(
    *,
    backend: str = "vllm",
    vram: object = 10,
    headroom: object = 1,
    context: object = 8192,
    concurrency: object = 2,
    quantization: str = "fp16",
    more: str = "",
) -> str:
    file = ".gguf" if backend == "llamacpp" else ""
    return TEXT.format(**locals())


CPU = stack(backend="llamacpp", quantization="q8_0", more="    placement: cpu\n")


def ways(found: Diagnostic) -> list[str]:
    return [fix.text for fix in found.fixes]


def repaired(text: str, fix: Fix) -> str:
    for edit in sorted(fix.edits, key=lambda one: -one.span.start):
        text = text[: edit.span.start] + edit.replacement + text[edit.span.end :]
    return text


def is_placed(loaded: Loaded) -> bool:
    return not [item for item in resolve(loaded)[1] if item.code in {"IW410", "IW412"}]


def test_the_ways_are_listed_cheapest_first_and_the_excuse_last(read: Read, known: Known, one: One) -> None:
    found = one(read(stack(vram="9.7"), m=known(6)), "IW410")
    assert ways(found) == [
        "context: 4352",
        "concurrency: 1",
        "a file of at most 4.95 GiB, about fp8 of it",
        "a GPU of 10.8GiB or more, e.g. wide",
        "keep: grace",
    ]
    assert found.notes == ()
    assert not [fix for fix in found.fixes if fix.applicability is Applicability.SAFE]


@pytest.mark.parametrize(
    ("text", "weights", "way"),
    [
        (stack(vram="9", context=32768, concurrency=4), 6, "context: 3584 and concurrency: 1"),
        (stack(vram="9.5", context="{at_least: 8192, up_to: 9000}"), 6, "context.at_least: 3584"),
        (stack(vram="9", context=2048), 6, "vllm: {enforce-eager: true}  (no CUDA graphs: slower)"),
        (stack(vram="10.5", headroom=4), 6, "profiles.card.headroom: 640MiB, if nothing else needs that GPU"),
        (stack(vram="10"), 9, "a file of at most 5.25 GiB, about fp8 of it"),
        (stack(quantization="mxfp4"), 9, "a file of at most 5.25 GiB"),
        (CPU, 6, "profiles.wide.host_memory: 8.5GiB, if the machine has it"),
        (CPU.replace("8192", "4096"), 3.5, "a file of at most 2.62 GiB, about q5_k_m of it"),
    ],
)
def test_each_way_is_found_where_it_works(read: Read, known: Known, text: str, weights: float, way: str) -> None:
    (found,) = (item for item in resolve(read(text, m=known(weights)))[1] if item.code in {"IW410", "IW412"})
    assert way in ways(found)


def test_why_no_context_helps_is_told_with_the_rest_of_the_sum(read: Read, known: Known, one: One) -> None:
    found = one(read(stack(), m=known(9)), "IW410")
    assert found.notes == ("no shorter context and no lower concurrency is enough: all but the KV cache is 10.50 GiB",)
    assert not [way for way in ways(found) if way.startswith(("context", "concurrency"))]


def test_a_declared_total_is_not_shortened(read: Read, known: Known, one: One) -> None:
    found = one(read(stack(more="    vram: {total: 11GiB, because: measured}\n"), m=known(9)), "IW410")
    assert ways(found) == ["a GPU of 12.0GiB or more, e.g. wide", "keep: grace"]
    assert found.notes == ()


def test_a_context_that_a_role_needs_is_not_given_up(read: Read, known: Known, one: One) -> None:
    """One image of 1024px is 1024 tokens for qwen3_vl; with answer, prompt and reserve a judge asks for 5696."""
    more = "    capabilities: [chat, vision]\n    roles: {judge: 50}\n"
    free = one(read(stack(vram="10", more=more.replace("judge", "chat")), m=known(6)), "IW410")
    assert ways(free)[0] == "context: 3328"
    held = one(read(stack(vram="10", more=more), m=known(6)), "IW410")
    assert ways(held)[0] == "context: 6656 and concurrency: 1"


def test_a_default_is_changed_in_the_model_and_without_an_edit(read: Read, known: Known, one: One) -> None:
    text = stack(vram="9.7").replace("    context: 8192\n", "").replace("    concurrency: 2\n", "")
    fixes = one(read(text, m=known(6)), "IW410").fixes
    assert [fix.text for fix in fixes[:2]] == ["context: 4352 in m", "concurrency: 1 in m"]
    assert not any(fix.edits for fix in fixes)


def test_a_kv_cache_below_one_request_is_told_in_tokens(read: Read, known: Known, one: One) -> None:
    found = one(read(stack(vram=20, more="    vram: {kv: 1GiB}\n"), m=known(6)), "IW410")
    assert found.message == "the declared KV cache of m cannot hold one request"
    (sums,) = found.sums
    assert (sums.unit, sums.needed[0].amount, sums.available[0].amount) == (Unit.TOKENS, 8192, 7281)
    assert ways(found)[0] == "kv: 1152MiB or more"
    assert is_placed(read(stack(vram=20, more="    vram: {kv: 1152MiB}\n"), m=known(6)))


@example(vram=6, weights=2, context=8192, concurrency=4, headroom=1, backend="llamacpp")  # 8.2001 GiB
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    vram=st.integers(6, 24),
    weights=st.sampled_from([2, 4.5, 6, 9, 14]),
    context=st.sampled_from([1024, 3000, 8192, 40_000]),
    concurrency=st.integers(1, 9),
    headroom=st.sampled_from([1, 1.2, 2.5, 5]),
    backend=st.sampled_from(["vllm", "llamacpp"]),
)
def test_whatever_is_proposed_works_when_it_is_done(  # noqa: PLR0917 - drawn
    read: Read,
    known: Known,
    vram: int,
    weights: float,
    context: int,
    concurrency: int,
    headroom: float,
    backend: str,
) -> None:
    more = "    placement: gpu\n"
    text = stack(backend=backend, vram=vram, headroom=headroom, context=context, concurrency=concurrency, more=more)
    for found in (item for item in resolve(read(text, m=known(weights)))[1] if item.code == "IW410"):
        assert found.message.startswith("m does not fit card")
        for fix in found.fixes[:-1]:
            changed, size = repaired(text, fix), weights
            if fix.text.startswith("vllm"):
                changed = text + "    vllm: {enforce-eager: true}\n"
            elif fix.text.startswith("a file"):
                size = float(fix.text.split()[5]) - 0.01  # told with two decimals
            elif fix.text.startswith("a GPU"):
                changed = text.replace(f">={vram}GiB", f">={fix.text.split()[3]}")
            assert (changed, size) != (text, weights)
            assert is_placed(read(changed, m=known(size))), fix.text
