"""What a profile for one machine takes over from the one that the machine would otherwise get."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from imageworks.model.loaded import Loaded
from imageworks.plan.ir import MIB
from imageworks.plan.match import FoundGpu, choose
from imageworks.plan.own_profile import own_profile

Read = Callable[..., Loaded]
CARD = FoundGpu("GPU-0", "a card", 32607 * MIB, (12, 0))


def settings(read: Read, base: str, *gpus: FoundGpu) -> dict[str, str]:
    text = own_profile("mine", gpus, read("version: 1\nmodels: {}\n").stack.profiles[base])
    loaded = read(f"version: 1\nmodels: {{}}\n{text}")
    assert choose(loaded.stack.profiles, gpus).profile == "mine"
    lines = (line.strip().split(": ", 1) for line in text.splitlines() if line.startswith("    ") and ": " in line)
    return {line[0]: line[1] for line in lines if not line[0].startswith("-")}


@pytest.mark.parametrize(
    ("base", "count", "strategy", "at_once"),
    [
        ("development", 1, "load_unload", "1"),
        ("constrained_16gb", 1, "load_unload", "1"),
        ("constrained_16gb", 2, "concurrent_limited", "2"),
        ("multi_gpu_2x16gb", 1, "concurrent_limited", "3"),
        ("multi_gpu_2x16gb", 2, "tensor_parallel_or_distributed", "3"),
        ("generous_80gb", 1, "concurrent_full", "5"),
    ],
)
def test_each_device_can_hold_a_model_and_only_alike_ones_are_split(
    read: Read, base: str, count: int, strategy: str, at_once: str
) -> None:
    found = settings(read, base, *[CARD] * count)
    assert (found["strategy"], found["max_concurrent_models"]) == (strategy, at_once)
    assert ("tensor_parallel_above" in found) is (strategy == "tensor_parallel_or_distributed")


def test_the_rest_is_as_it_was(read: Read) -> None:
    found = settings(read, "balanced_24gb", CARD)
    assert found == {
        "headroom": "0.7GiB",
        "host_memory": "4GiB",
        "max_concurrent_models": "2",
        "strategy": "concurrent_limited",
        "prefer_quantizations": "[fp8, awq, q4_k_m, q5_k_m]",
        "selection_bias": "balanced",
        "start_timeout": "90s",
        "grace": "600s",
    }


def test_a_profile_without_gpus_gives_the_default_headroom(read: Read) -> None:
    assert settings(read, "development", CARD)["headroom"] == "1GiB"


def test_no_preference_stays_no_preference(read: Read) -> None:
    plain = read('version: 1\nprofiles: {p: {match: {gpus: 1, vram: ">=8GiB"}, headroom: 1GiB}}\nmodels: {}\n').stack
    assert "prefer_quantizations" not in own_profile("mine", (CARD,), plain.profiles["p"])
