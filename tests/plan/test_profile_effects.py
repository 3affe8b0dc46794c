"""Every field of a profile changes what is emitted or what the scheduler decides; never only a parsed object."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from imageworks.model.loaded import Loaded
from imageworks.model.lock import LockedModel
from imageworks.plan.resolve import resolve
from imageworks.runtime.events import Adopt, Arrive, Ready, Start, Stop, Tick
from imageworks.runtime.residency import machine
from imageworks.runtime.scheduler import initial, step
from imageworks.runtime.table import decode
from imageworks.targets.registry import emit

Read = Callable[..., Loaded]
Known = Callable[..., LockedModel]
Files = Mapping[str, str]

STACK = """
version: 1
profiles:
  mine: {{match: {match}, headroom: {headroom}, max_concurrent_models: {count}, strategy: {strategy}{more}}}
models:
  a: {{backend: vllm, source: {{path: o/a}}, quantization: fp8, context: {context}, concurrency: 1, roles: {{chat: 50}}}}
  b: {{backend: llamacpp, source: {{path: b.gguf}}, quantization: q4_k_m, placement: gpu, context: 1024, concurrency: 1, roles: {{chat: 50}}}}
  c: {{backend: llamacpp, source: {{path: c.gguf}}, quantization: q8_0, placement: cpu, context: 1024, concurrency: 1}}
"""
GROUP = "groups:\n  g: {models: [a, b], profiles: [mine]}\n"
ONE = '{gpus: 1, vram: ">=24GiB"}'
TWO = '{gpus: 2, vram: ">=12GiB"}'


@pytest.fixture
def files(read: Read, known: Known) -> Callable[..., Files]:
    """`files(count=2, …)`: what is emitted for the profile `mine`, by path."""

    def make(*, end: str = "", **changes: object) -> Files:
        settings: dict[str, object] = {
            "match": ONE, "headroom": "1GiB", "count": 2, "strategy": "concurrent_limited", "more": "",
            "context": 8192,
        }  # fmt: skip
        settings |= changes
        loaded = read(STACK.format(**settings) + end, a=known(8), b=known(6), c=known(1))
        plans, findings = resolve(loaded)
        assert not [item for item in findings if item.is_error], findings
        plan = next(item for item in plans if item.profile == "mine")
        return {item.path: item.text for item in emit(plan, plans)}

    return make


def routes(emitted: Files) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(emitted["routes.json"])
    return document


def argv(emitted: Files, model: str) -> list[str]:
    words: list[str] = json.loads(emitted[f"exec/model-{model}.json"])["argv"]
    return words


def decided(emitted: Files, *models: str) -> list[object]:
    """What the scheduler does when the models are asked for one after the other, each loaded before the next."""
    state = initial(machine(decode(emitted["routes.json"].encode())))
    state, effects = step(state, Adopt({}), 0.0)
    told: list[object] = list(effects)
    for index, name in enumerate(models):
        state, effects = step(state, Arrive(f"r{index}", (name,), 99.0), 1.0)
        told += effects
        if any(isinstance(item, Start) and item.model == name for item in effects):
            state, _ = step(state, Ready(name), 2.0)
    return [type(item)(item.model) for item in told if isinstance(item, Start | Stop)]


def test_max_concurrent_models_decides_whether_a_second_model_starts(files: Callable[..., Files]) -> None:
    assert decided(files(count=2), "a", "b") == [Start("a"), Start("b")]
    assert decided(files(count=1), "a", "b") == [Start("a")]  # b waits until a has answered


def test_strategy_load_unload_holds_one_and_concurrent_limited_several(files: Callable[..., Files]) -> None:
    one = files(strategy="load_unload", count=1)
    assert routes(one)["policy"] == {
        "host_budget_mib": 4096,
        "max_concurrent_models": 1,
        "resident": [],
        "strategy": "load_unload",
    }
    assert decided(one, "a", "b") == [Start("a")]


def test_strategy_concurrent_full_starts_the_group_at_once(files: Callable[..., Files]) -> None:
    assert decided(files(strategy="concurrent_full", end=GROUP)) == [Start("a")]  # b after it: one GPU
    assert decided(files(strategy="concurrent_limited", end=GROUP)) == []
    policy = routes(files(strategy="concurrent_full", end=GROUP))["policy"]
    assert (policy["resident"], policy["in_turn"]) == (["a", "b"], [["a", "b"]])


def test_tensor_parallel_above_splits_and_binds_both_gpus(files: Callable[..., Files]) -> None:
    split = files(match=TWO, strategy="tensor_parallel_or_distributed", more=", tensor_parallel_above: 7GiB")
    whole = files(match=TWO, strategy="tensor_parallel_or_distributed", more=", tensor_parallel_above: 9GiB")
    assert "--tensor-parallel-size=2" in argv(split, "a")
    assert json.loads(split["exec/model-a.json"])["devices"] == [0, 1]
    assert sorted(routes(split)["routes"]["a"]["gpu_mib"]) == ["0", "1"]
    assert not any(word.startswith("--tensor-parallel-size") for word in argv(whole, "a"))
    assert json.loads(whole["exec/model-a.json"])["devices"] == [0]


def order(emitted: Files) -> list[str]:
    return [row["model"] for row in routes(emitted)["roles"]["mine"]["chat"]["candidates"]]


def test_prefer_quantizations_breaks_the_tie_of_two_models(files: Callable[..., Files]) -> None:
    assert order(files(more=", prefer_quantizations: [fp8, q4_k_m]")) == ["a", "b"]
    assert order(files(more=", prefer_quantizations: [q4_k_m, fp8]")) == ["b", "a"]


def test_selection_bias_breaks_it_where_no_quantization_is_preferred(files: Callable[..., Files]) -> None:
    assert order(files(more=", selection_bias: vram_efficient")) == ["b", "a"]
    assert order(files(more=", selection_bias: quality")) == ["a", "b"]
    assert order(files(more=", selection_bias: balanced")) == ["a", "b"]  # by id


def test_headroom_is_taken_from_the_cache_of_a_model_with_a_range(files: Callable[..., Files]) -> None:
    def cache(headroom: str) -> int:
        words = argv(
            files(headroom=headroom, count=1, strategy="load_unload", context="{at_least: 1024, up_to: 262144}"), "a"
        )
        return int(next(word.split("=")[1] for word in words if word.startswith("--kv-cache-memory-bytes=")))

    assert 1.9 * 2**30 < cache("1GiB") - cache("3GiB") < 2.1 * 2**30
    assert routes(files(headroom="3GiB"))["gpus"][0]["budget_mib"] == 21 * 1024


def test_host_memory_bounds_what_runs_on_the_cpu(files: Callable[..., Files]) -> None:
    assert "exec/model-c.json" in files(more=", host_memory: 2GiB")
    small = files(more=", host_memory: 1GiB")
    assert "exec/model-c.json" not in small
    assert "1.0 usable on host_memory of mine" in routes(small)["unplaced"]["c"]
    assert routes(small)["policy"]["host_budget_mib"] == 1024


def test_start_timeout_and_grace_reach_the_routes(files: Callable[..., Files]) -> None:
    row = routes(files(more=", start_timeout: 77s, grace: 33s"))["routes"]["a"]
    assert (row["start_timeout_s"], row["grace_s"]) == (77.0, 33.0)


def test_grace_is_when_an_idle_model_is_stopped(files: Callable[..., Files]) -> None:
    state = initial(machine(decode(files(more=", grace: 33s")["routes.json"].encode())))
    state, _ = step(state, Adopt({"a": "ready"}), 0.0)
    state, early = step(state, Tick(), 32.0)
    _, late = step(state, Tick(), 33.0)
    assert Stop("a") not in early
    assert Stop("a") in late
