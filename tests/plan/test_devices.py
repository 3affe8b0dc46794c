"""Plans for machines whose GPUs differ, and what a profile must say about its machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from imageworks.diagnostics.model import Diagnostic
from imageworks.model.loaded import Loaded
from imageworks.model.lock import LockedModel
from imageworks.plan.assignment import assign
from imageworks.plan.ir import GIB, PlannedModel
from imageworks.plan.resolve import resolve

Read = Callable[..., Loaded]
Known = Callable[..., LockedModel]
One = Callable[..., Diagnostic]
Codes = Callable[..., tuple[str, ...]]

LARGE_AND_SMALL = '{devices: [{vram: ">=8GiB", compute: ">=7.5"}, {vram: ">=24GiB", compute: ">=8.9"}]}'


def stack(
    match: str = LARGE_AND_SMALL, *, models: str = "", more: str = "", strategy: str = "concurrent_limited"
) -> str:
    return f"""
version: 1
profiles:
  mine: {{match: {match}, headroom: 1GiB, max_concurrent_models: 3, strategy: {strategy}{more}}}
models:{models or " {}"}
"""


def vllm(name: str, more: str = "") -> str:
    return f"\n  {name}: {{backend: vllm, source: {{path: o/{name}}}, context: 1024, concurrency: 1{more}}}"


def test_each_device_has_its_own_budget(read: Read) -> None:
    plan = next(item for item in resolve(read(stack()))[0] if item.profile == "mine")
    assert [device.budget for device in plan.devices] == [7 * GIB, 23 * GIB]


def test_a_model_goes_where_it_fits_and_then_where_most_room_is(
    read: Read, known: Known, placed: Callable[..., PlannedModel]
) -> None:
    loaded = read(stack(models=vllm("a") + vllm("b") + vllm("c")), a=known(16), b=known(4), c=known(1))
    slots = {name: placed(loaded, "mine", name).placement.slots for name in "abc"}
    assert slots == {"a": (1,), "b": (0,), "c": (1,)}


def test_what_fits_no_device_is_left_out_with_the_largest(read: Read, known: Known) -> None:
    plan = next(item for item in resolve(read(stack(models=vllm("a")), a=known(24)))[0] if item.profile == "mine")
    assert plan.unplaced[0].code == "IW410"
    assert "23.0 usable on 1 GPU of mine" in plan.unplaced[0].reason


def test_a_split_is_bounded_by_the_smallest_device(read: Read, known: Known) -> None:
    text = stack(models=vllm("a"), strategy="tensor_parallel_or_distributed", more=", tensor_parallel_above: 10GiB")
    plan = next(item for item in resolve(read(text, a=known(14)))[0] if item.profile == "mine")
    assert "14.0 usable on 2 GPUs of mine" in plan.unplaced[0].reason


def test_utilization_of_a_split_is_of_the_larger_card(
    read: Read, known: Known, placed: Callable[..., PlannedModel]
) -> None:
    text = stack(models=vllm("a"), strategy="tensor_parallel_or_distributed", more=", tensor_parallel_above: 5GiB")
    launch = placed(read(text, a=known(8)), "mine", "a").launch
    assert launch is not None
    value = next(flag.value for flag in launch.flags if flag.name == "--gpu-memory-utilization")
    assert value == f"{int((8 + 3.0 + 0.143) / 2 / 24 * 1000) / 1000:.3f}"


def test_the_weakest_device_decides_what_runs(read: Read, known: Known) -> None:
    text = stack(models=vllm("a", ", quantization: mxfp4"))
    plan = next(item for item in resolve(read(text, a=known(2)))[0] if item.profile == "mine")
    assert "needs compute capability 8.0; mine starts at 7.5" in plan.unplaced[0].reason


def test_several_gpus_are_used_whatever_the_strategy(
    read: Read, known: Known, placed: Callable[..., PlannedModel]
) -> None:
    loaded = read(stack('{gpus: 2, vram: ">=16GiB"}', models=vllm("a") + vllm("b")), a=known(8), b=known(8))
    assert {placed(loaded, "mine", name).placement.slots for name in "ab"} == {(0,), (1,)}


@pytest.mark.parametrize(
    ("match", "told"),
    [
        ('{vram: ">=8GiB"}', "neither gpus nor devices"),
        ("{}", "neither gpus nor devices"),
        ('{gpus: 1, devices: [{vram: ">=8GiB"}]}', "gpus beside devices"),
        ('{vram: ">=8GiB", compute: ">=8.0", devices: [{vram: ">=8GiB"}]}', "vram and compute beside devices"),
    ],
)
def test_a_match_counts_or_lists_and_not_both(read: Read, one: One, codes: Codes, match: str, told: str) -> None:
    assert codes(read(stack(match))) == ("IW408",)
    found = one(read(stack(match)), "IW408")
    assert found.primary is not None
    assert found.primary.text == told


def test_a_device_without_a_size_is_shown(read: Read, one: One) -> None:
    found = one(read(stack('{devices: [{vram: ">=8GiB"}, {compute: ">=8.0"}]}')), "IW407")
    assert found.primary is not None
    assert found.primary.span.line == 4


def test_slices_cannot_be_split_over(read: Read, one: One) -> None:
    text = stack(
        "{devices: [{mig: 3g.40gb}, {mig: 3g.40gb}]}",
        strategy="tensor_parallel_or_distributed",
        more=", tensor_parallel_above: 10GiB",
    )
    assert one(read(text), "IW404").notes == ("no tensor parallelism across MIG slices",)


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        ('{devices: [{vram: ">=8GiB"}]}', '{devices: [{vram: ">=20GiB"}]}', True),
        ('{devices: [{vram: ">=8GiB"}]}', '{gpus: 1, vram: ">=8GiB"}', False),  # the list is looked at first
        ('{devices: [{vram: ">=8GiB <12GiB"}]}', '{devices: [{vram: ">=12GiB"}]}', False),
        ("{devices: [{mig: 3g.40gb}]}", '{devices: [{vram: ">=8GiB"}]}', False),
        (
            '{devices: [{vram: ">=8GiB <12GiB"}, {vram: ">=20GiB"}]}',
            '{devices: [{vram: ">=24GiB"}, {vram: ">=10GiB <11GiB"}]}',
            True,
        ),
    ],
)
def test_two_lists_that_one_machine_fulfils_overlap(
    read: Read,
    codes: Codes,
    first: str,
    second: str,
    overlap: bool,  # noqa: FBT001 - a table's column
) -> None:
    text = f"version: 1\nmodels: {{}}\nprofiles:\n  a: {{match: {first}}}\n  b: {{match: {second}}}\n"
    assert ("IW401" in codes(read(text))) is overlap


def test_an_assignment_moves_what_was_taken_if_need_be() -> None:
    assert assign([[0, 1], [0, 2], [1]]) == (0, 2, 1)
    assert assign([[0, 1], [0], [1]]) is None
    assert assign([]) == ()
