"""Values of vLLM flags: taken and refused as vLLM's parser does, by the real table.

That the whole table agrees with the real parser is measured by scripts/vllm-check; here stand the cases by hand.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.model.vllm_table import VllmFlag, table
from imageworks.plan.vllm_values import WANTED, complaint, unknown_word

TABLE = table("0.32.0")


def flag(name: str) -> VllmFlag:
    assert TABLE is not None
    return TABLE.flags[name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enforce-eager", True),
        ("enforce-eager", False),
        ("disable-log-stats", True),
        ("hf-token", True),
        ("seed", 7),
        ("seed", "7"),
        ("cpu-offload-gb", 2),
        ("cpu-offload-gb", 0.5),
        ("cpu-offload-gb", "1e1"),
        ("max-num-batched-tokens", 8192),
        ("max-num-batched-tokens", "8k"),
        ("max-num-batched-tokens", "2.5k"),
        ("max-num-batched-tokens", "8K"),
        ("max-model-len", "auto"),
        ("kv-cache-dtype", "fp8"),
        ("max-lora-rank", 64),
        ("moe-backend", "Deep-Gemm"),
        ("revision", "None"),
        ("revision", 7),
        ("compilation-config", {"mode": 3}),
        ("compilation-config", '{"mode": 3}'),
        ("kv-transfer-config", "None"),
        ("hf-overrides", {"a": 1}),
        ("hf-overrides", "some.module"),
        ("allowed-origins", ("*",)),
        ("speculative-config", {"anything": 1}),
        ("cudagraph-capture-sizes", (1, 2)),
        ("cudagraph-capture-sizes", 1),
        ("middleware", ("a", "b")),
        ("lora-modules", ("a=b", {"name": "c", "path": "d"})),
    ],
)
def test_what_vllm_takes_is_taken(name: str, value: Any) -> None:
    assert complaint(flag(name), value) is None


@pytest.mark.parametrize(
    ("name", "value", "label", "meant"),
    [
        ("enforce-eager", "yes", "true or false, it takes no value", "true"),
        ("enforce-eager", "off", "true or false, it takes no value", "false"),
        ("enforce-eager", "hermes", "true or false, it takes no value", ""),
        ("disable-log-stats", False, "it has no opposite: leave the line out", ""),
        ("disable-log-stats", "off", "true or false, it takes no value", ""),
        ("tool-call-parser", True, "it wants one word or text, no switch", ""),
        ("hf-token", False, "it wants one word or text, no switch", ""),
        ("seed", 1.5, "it wants a whole number", ""),
        ("seed", "None", "it wants a whole number", ""),
        ("seed", "0x4", "it wants a whole number", ""),
        ("cpu-offload-gb", "much", "it wants a number", ""),
        ("max-num-batched-tokens", "2.5K", "it wants a whole number, or such as 4k or 2M", ""),
        ("max-num-batched-tokens", "auto", "it wants a whole number, or such as 4k or 2M", ""),
        ("kv-cache-dtype", "fp88", "did you mean `fp8`?", "fp8"),
        ("runner", "elephant", "it wants one of: auto draft generate pooling", ""),
        ("max-lora-rank", 7, "it wants one of: 1 8 16 32 64 128 256 320 512", ""),
        ("revision", {"a": 1}, "it wants one word or text", ""),
        ("revision", ("a",), "it wants one word or text", ""),
        ("compilation-config", 3, "it wants a map", ""),
        ("compilation-config", ("a",), "it wants a map", ""),
        ("compilation-config", {"mod": 3}, "it has no key `mod`; did you mean `mode`?", ""),
        ("compilation-config", '{"elephant": 3}', "it has no key `elephant`", ""),
        ("hf-overrides", 3, "it wants a map, or one word", ""),
        ("allowed-origins", "*", "it wants a map or a list", ""),
        ("cudagraph-capture-sizes", (1, "two"), "`two`: it wants a whole number", ""),
        ("cudagraph-capture-sizes", (1, True), "`true`: a whole number", ""),
        ("cudagraph-capture-sizes", (), "an empty list gives it no value: leave the line out", ""),
        ("ignore-patterns", ("a", "-b"), "`-b` would be read as a flag", ""),
        ("lora-modules", ("a",), "`a`: it wants name=path, or a map with name and path", ""),
        ("lora-modules", ({"name": "c"},), '`{"name": "c"}`: it wants name=path, or a map with name and path', ""),
    ],
)
def test_what_vllm_refuses_is_told_with_what_was_meant(name: str, value: Any, label: str, meant: str) -> None:
    found = complaint(flag(name), value)
    assert found is not None
    assert (found.label, found.meant) == (label, meant)


@pytest.mark.parametrize(
    ("name", "value", "label"),
    [
        ("tool-call-parser", "hermez", "did you mean `hermes`?"),
        ("quantization", "elephant", "vLLM brings none of this name"),
        ("tool-call-parser", "hermes", None),
        ("quantization", "None", None),
        ("revision", "anything", None),
    ],
)
def test_a_word_that_only_a_plugin_could_bring_is_told_apart(name: str, value: str, label: str | None) -> None:
    assert complaint(flag(name), value) is None
    found = unknown_word(flag(name), value)
    assert (found.label if found else None) == label


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(TABLE.flags) if TABLE else []), VALUES)
def test_any_value_is_taken_or_told(name: str, value: Any) -> None:
    found = complaint(flag(name), value)
    assert found is None or found.label


def test_every_type_says_what_it_wants() -> None:
    assert TABLE is not None
    assert {item.type for item in TABLE.flags.values()} <= set(WANTED)
