"""Which machine gets which profile: every row of the table of layouts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.model.load import load
from imageworks.model.stack import Profile
from imageworks.plan.ir import MIB
from imageworks.plan.match import FoundGpu, choose, planned
from imageworks.source.files import MemoryFiles

_LOADED = load("stack.yaml", MemoryFiles({"stack.yaml": "version: 1\nmodels: {}\n"}), "studio").loaded
assert _LOADED is not None
PROFILES: dict[str, Profile] = _LOADED.stack.profiles


def cards(*mib: int, compute: tuple[int, int] = (8, 9), mig: bool = False) -> tuple[FoundGpu, ...]:
    return tuple(FoundGpu(f"GPU-{index}", f"card {size}", size * MIB, compute, mig) for index, size in enumerate(mib))


LAYOUTS = [
    pytest.param(cards(), "development", "match", (), id="cpu only"),
    pytest.param(cards(8188), "compact_8gb", "match", (0,), id="1x8"),
    pytest.param(cards(12282), "compact_12gb", "match", (0,), id="1x12"),
    pytest.param(cards(16376), "constrained_16gb", "match", (0,), id="1x16"),
    pytest.param(cards(20475), "constrained_16gb", "match", (0,), id="1x20"),
    pytest.param(cards(20480), "constrained_16gb", "match", (0,), id="1x20 exactly"),
    pytest.param(cards(15360, compute=(7, 5)), "compact_12gb", "fits under", (0,), id="T4"),
    pytest.param(cards(24564), "balanced_24gb", "match", (0,), id="1x24"),
    pytest.param(cards(23034), "balanced_24gb", "match", (0,), id="L4"),
    pytest.param(cards(22731), "balanced_24gb", "match", (0,), id="L4 with ECC"),
    pytest.param(cards(32607), "balanced_24gb", "match", (0,), id="1x32"),
    pytest.param(cards(49140), "roomy_40gb", "match", (0,), id="1x48"),
    pytest.param(cards(46068), "roomy_40gb", "match", (0,), id="L40S"),
    pytest.param(cards(81559), "generous_80gb", "match", (0,), id="H100"),
    pytest.param(cards(81920), "generous_80gb", "match", (0,), id="A100 80"),
    pytest.param(cards(97887), "generous_96gb", "match", (0,), id="1x96"),
    pytest.param(cards(143771), "generous_96gb", "match", (0,), id="1x141"),
    pytest.param(cards(16376, 16376), "multi_gpu_2x16gb", "match", (0, 1), id="2x16"),
    pytest.param(cards(24564, 24564), "multi_gpu_2x16gb", "match", (0, 1), id="2x24"),
    pytest.param(cards(81559, 81559), "generous_80gb", "fits under", (0,), id="2x80"),
    pytest.param(cards(46068, 49140), "roomy_40gb", "fits under", (1,), id="the larger of two that would do"),
    pytest.param(cards(8188, 8188, 8188), "compact_8gb", "fits under", (0,), id="3x8"),
    pytest.param(cards(24564, 24564, 24564, 24564), "multi_gpu_2x16gb", "fits under", (0, 1), id="4x24"),
    pytest.param(cards(24564, 8188), "balanced_24gb", "fits under", (0,), id="24+8"),
    pytest.param(cards(8188, 24564), "balanced_24gb", "fits under", (1,), id="8+24"),
    pytest.param(cards(40192, 40192, mig=True), "roomy_40gb", "fits under", (0,), id="2 x 3g.40gb"),
    pytest.param(cards(*[9728] * 7, mig=True), "compact_8gb", "fits under", (0,), id="7 x 1g.10gb"),
    pytest.param(cards(*[19968] * 3, mig=True), "constrained_16gb", "fits under", (0,), id="3 x 2g.20gb"),
    pytest.param(cards(19968, 19968, mig=True), "constrained_16gb", "fits under", (0,), id="2 slices are no pair"),
    pytest.param(cards(4096), "development", "fits under", (), id="too small for anything"),
]


@pytest.mark.parametrize(("gpus", "profile", "how", "indexes"), LAYOUTS)
def test_the_table_of_layouts(gpus: tuple[FoundGpu, ...], profile: str, how: str, indexes: tuple[int, ...]) -> None:
    choice = choose(PROFILES, gpus)
    assert (choice.profile, choice.how, choice.gpu_indexes) == (profile, how, indexes)


def test_without_a_profile_for_no_gpu_nothing_is_chosen() -> None:
    choice = choose({"generous_80gb": PROFILES["generous_80gb"]}, cards(8188))
    assert (choice.profile, choice.how) == ("", "none")


def test_unused_memory_and_idle_cards_are_told() -> None:
    spare = choose(PROFILES, cards(32607))
    assert any("9.74 GiB of card 32607" in line for line in spare.explanation)
    idle = choose(PROFILES, cards(81559, 8188))
    assert idle.explanation[-2:] == (
        "unused: card 8188",
        "to plan with exactly these devices: imageworks profile add --from-this-machine",
    )


@given(st.data())
def test_the_order_of_the_cards_never_changes_the_profile(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1_000, 150_000), max_size=4))
    shuffled = data.draw(st.permutations(sizes))
    assert choose(PROFILES, cards(*sizes)).profile == choose(PROFILES, cards(*shuffled)).profile


@given(st.lists(st.integers(1_000, 150_000), max_size=4))
def test_every_chosen_card_holds_what_is_planned_on_it(sizes: list[int]) -> None:
    gpus = cards(*sizes)
    choice = choose(PROFILES, gpus)
    bounds = PROFILES[choice.profile].match.vram
    assert len(choice.gpu_indexes) == PROFILES[choice.profile].match.gpus
    assert all(bounds is not None and gpus[index].total_bytes >= bounds.low for index in choice.gpu_indexes)


@given(st.lists(st.integers(1_000, 150_000), max_size=3), st.integers(1_000, 150_000))
def test_when_nothing_matches_one_more_card_never_means_less(sizes: list[int], more: int) -> None:
    before, after = choose(PROFILES, cards(*sizes)), choose(PROFILES, cards(*sizes, more))
    if after.how == "fits under":
        assert planned(PROFILES[after.profile]) >= planned(PROFILES[before.profile])


def mixed(text: str, name: str = "mine") -> dict[str, Profile]:
    """The built-in profiles (a stack that declares one loses them) and one with the match of `text`."""
    stack = f"version: 1\nmodels: {{}}\nprofiles:\n  {name}: {{match: {text}}}\n"
    loaded = load("stack.yaml", MemoryFiles({"stack.yaml": stack}), "studio").loaded
    assert loaded is not None
    return {**PROFILES, name: loaded.stack.profiles[name]}


def slices(*named: tuple[str, int]) -> tuple[FoundGpu, ...]:
    return tuple(
        FoundGpu(f"MIG-{index}", f"NVIDIA H100 MIG {name}", mib * MIB, (9, 0), mig=True)
        for index, (name, mib) in enumerate(named)
    )


def test_a_list_of_devices_takes_each_where_it_belongs() -> None:
    profiles = mixed('{devices: [{vram: ">=22.1GiB"}, {vram: ">=7.5GiB <11.5GiB"}]}')
    for gpus, indexes in ((cards(24564, 8188), (0, 1)), (cards(8188, 24564), (1, 0))):
        choice = choose(profiles, gpus)
        assert (choice.profile, choice.how, choice.gpu_indexes) == ("mine", "match", indexes)


def test_a_list_of_devices_goes_before_a_count_of_gpus() -> None:
    profiles = mixed('{devices: [{vram: ">=31.8GiB", compute: ">=8.9"}]}')
    assert choose(profiles, cards(32607)).profile == "mine"
    assert choose(profiles, cards(24564)).profile == "balanced_24gb"


def test_every_device_of_the_list_needs_one_of_its_own() -> None:
    profiles = mixed('{devices: [{vram: ">=7GiB"}, {vram: ">=22GiB"}]}')
    assert choose(profiles, cards(8188, 8188)).profile == "compact_8gb"
    assert choose(profiles, cards(24564, 24564)).profile == "mine"


def test_slices_are_taken_by_their_name() -> None:
    profiles = mixed("{devices: [{mig: 3g.40gb}, {mig: 3g.40gb}]}")
    assert choose(profiles, slices(("3g.40gb", 40192), ("3g.40gb", 40192))).profile == "mine"
    other = choose(profiles, slices(("3g.40gb", 40192), ("4g.40gb", 40192)))
    assert (other.profile, other.how) == ("roomy_40gb", "fits under")


def test_a_device_without_the_word_mig_is_a_whole_card() -> None:
    profiles = mixed('{devices: [{vram: ">=30GiB"}, {vram: ">=30GiB"}]}')
    assert choose(profiles, slices(("3g.40gb", 40192), ("3g.40gb", 40192))).profile == "roomy_40gb"


def test_a_slice_without_a_size_is_planned_below_its_name() -> None:
    profile = mixed("{devices: [{mig: 3g.40gb}]}")["mine"]
    assert planned(profile) == 36_000_000_000 - profile.headroom
    assert "a MIG slice 3g.40gb" in choose({"mine": profile}, slices(("3g.40gb", 40192))).explanation[1]


def test_a_machine_with_more_devices_still_fits_the_list() -> None:
    choice = choose(mixed('{devices: [{vram: ">=47GiB"}, {vram: ">=47GiB"}]}'), cards(8188, 49140, 49140))
    assert (choice.profile, choice.how, choice.gpu_indexes) == ("mine", "fits under", (1, 2))
    assert "one GPU, from 47.00 GiB and one GPU, from 47.00 GiB" in choice.explanation[4]
