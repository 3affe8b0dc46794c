"""`imageworks profile`: what there is, what this machine gets, and a profile for exactly it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imageworks.commands import machine
from imageworks.commands.machine import UnknownProfileError, choose_profile
from imageworks.model.load import load
from imageworks.plan.match import FoundGpu
from imageworks.source.files import MemoryFiles

from .conftest import SMALL, Verb

MIB = 1 << 20
PAIR = (
    FoundGpu("GPU-a", "NVIDIA GeForce RTX 4090", 24564 * MIB, (8, 9)),
    FoundGpu("GPU-b", "NVIDIA GeForce RTX 3050", 8188 * MIB, (8, 6)),
)
SLICES = tuple(
    FoundGpu(f"MIG-{index}", "NVIDIA H100 80GB HBM3 MIG 3g.40gb", 40192 * MIB, (9, 0), mig=True) for index in (0, 1)
)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[FoundGpu]:
    """The GPUs of this machine, to be filled by the test; what NVML says is tests/hardware's matter."""
    gpus: list[FoundGpu] = []
    monkeypatch.setattr(machine, "found_gpus", lambda: (tuple(gpus), ()))
    return gpus


def test_the_list_marks_what_this_machine_gets_and_says_why(small: Path, verb: Verb, found: list[FoundGpu]) -> None:
    assert small.exists()
    found += PAIR
    code, out, _ = verb("profile")
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("*")] == ["balanced_24gb"]
    assert "this machine gets balanced_24gb" in lines
    assert any("multi_gpu_2x16gb" in line and "13.7 + 13.7 GiB of GPU" in line for line in lines)
    assert lines[-2:] == [
        "  unused: NVIDIA GeForce RTX 3050",
        "  to plan with exactly these devices: imageworks profile add --from-this-machine",
    ]


def test_the_list_as_json(small: Path, verb: Verb, found: list[FoundGpu]) -> None:
    assert small.exists()
    found += PAIR
    code, out, _ = verb("profile", "--format", "json")
    told = json.loads(out)
    assert code == 0
    assert (told["machine"]["profile"], told["machine"]["gpus"]) == ("balanced_24gb", ["GPU-a"])
    assert len(told["machine"]["why"]) == 6
    row = next(row for row in told["profiles"] if row["name"] == "multi_gpu_2x16gb")
    assert (row["gpus"], row["budget_mib"], row["models"]) == (2, [14028, 14028], 1)


def test_a_profile_for_two_unlike_cards_is_written_and_is_what_the_machine_gets(
    small: Path, verb: Verb, found: list[FoundGpu]
) -> None:
    found += PAIR
    code, _, err = verb("profile", "add", "--from-this-machine")
    assert (code, "wrote stack.local.yaml" in err) == (0, True)
    code, out, _ = verb("profile", "--format", "json")
    told = json.loads(out)
    assert (told["machine"]["profile"], told["machine"]["gpus"]) == ("this-machine", ["GPU-a", "GPU-b"])
    row = next(row for row in told["profiles"] if row["name"] == "this-machine")
    assert row["budget_mib"] == [23756, 7372]  # 23.9 and 7.9 GiB, less the 0.7 of balanced_24gb
    assert (row["strategy"], row["max_concurrent_models"]) == ("concurrent_limited", 2)
    assert "stack.local.yaml" not in verb("compile", "--check")[2]  # the committed files do not know it
    assert small.joinpath("stack.local.yaml").exists()


def test_slices_are_named_and_nothing_is_split_over_them(small: Path, verb: Verb, found: list[FoundGpu]) -> None:
    found += SLICES
    code, out, _ = verb("profile", "add", "--from-this-machine", "--name", "slices", "--print")
    assert code == 0
    assert out.count('- {mig: 3g.40gb, vram: ">=39.2GiB", compute: ">=9.0"}') == 2
    assert "tensor_parallel" not in out
    assert not small.joinpath("stack.local.yaml").exists()
    loaded = load(
        ("stack.yaml",),
        MemoryFiles({"stack.yaml": SMALL, "stack.local.yaml": out}),
        "studio",
        local=True,
    ).loaded
    assert loaded is not None
    assert choose_profile(loaded.stack.profiles, None, {}).profile == "slices"


def test_equal_cards_keep_splitting(small: Path, verb: Verb, found: list[FoundGpu]) -> None:
    assert small.exists()
    found += (PAIR[0], PAIR[0])
    _, out, _ = verb("profile", "add", "--from-this-machine", "--print")
    assert "    strategy: tensor_parallel_or_distributed\n    tensor_parallel_above: 11.7GiB\n" in out


def test_roles_that_nothing_serves_there_are_excused(small: Path, verb: Verb, found: list[FoundGpu]) -> None:
    found.append(FoundGpu("GPU-t", "Tesla T4", 15360 * MIB, (7, 5)))
    bf16 = "  big: {backend: vllm, source: {path: o/big}, quantization: bf16, vram: {total: 3GiB, because: seen}, roles: {%s: 50}}\n"
    roles = "roles:\n  reasoning: {requires: [chat], may_be_missing_on: [development]}\n"
    text = SMALL + bf16 % "reasoning" + roles
    text += 'profiles:\n  card: {match: {gpus: 1, vram: ">=20GiB", compute: ">=8.0"}}\n'
    small.joinpath("stack.yaml").write_text(text, "utf-8")
    code, _, err = verb("profile", "add", "--from-this-machine")
    assert code == 0, err
    assert (
        small.joinpath("stack.local.yaml")
        .read_text("utf-8")
        .endswith("roles:\n  reasoning: {may_be_missing_on+: [this-machine]}\n")
    )


def test_a_file_that_exists_is_never_touched(small: Path, verb: Verb, found: list[FoundGpu]) -> None:
    found += PAIR
    own = small / "stack.local.yaml"
    own.write_text("defaults: {grace: 1m}\n", "utf-8")
    code, out, err = verb("profile", "add", "--from-this-machine")
    assert (code, out.startswith("profiles:\n  this-machine:\n")) == (1, True)
    assert "exists; put these lines into it" in err
    assert own.read_text("utf-8") == "defaults: {grace: 1m}\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--name", "development"), "has a profile `development` already"),
        (("--name", "Mein Rechner"), "IW211"),
    ],
)
def test_a_name_that_cannot_be_writes_nothing(
    small: Path, verb: Verb, found: list[FoundGpu], words: tuple[str, ...], told: str
) -> None:
    found += PAIR
    code, _, err = verb("profile", "add", "--from-this-machine", *words)
    assert (code, told in err) == (1, True)
    assert not small.joinpath("stack.local.yaml").exists()


def test_without_a_gpu_there_is_nothing_to_add(small: Path, verb: Verb, found: list[FoundGpu]) -> None:
    assert (small.exists(), found) == (True, [])
    code, _, err = verb("profile", "add", "--from-this-machine")
    assert (code, "no GPU here" in err) == (1, True)


def test_the_environment_beats_detection_and_a_misspelt_one_names_the_profiles(
    small: Path, verb: Verb, found: list[FoundGpu], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert small.exists()
    found += PAIR
    monkeypatch.setenv(machine.ENVIRONMENT, "development")
    assert "this machine gets development" in verb("profile")[1]
    monkeypatch.setenv(machine.ENVIRONMENT, "balanced_24")
    for words in (("profile",), ("up", "--once")):
        code, _, err = verb(*words)
        assert code == 1
        assert (
            "IMAGEWORKS_DEPLOYMENT_PROFILE names the unknown profile `balanced_24`; did you mean `balanced_24gb`? "
            "profiles: " in err
        )
        assert "compact_8gb" in err


def test_the_flag_beats_the_environment_and_keeps_the_devices_that_would_do(found: list[FoundGpu]) -> None:
    found += PAIR
    loaded = load(("stack.yaml",), MemoryFiles({"stack.yaml": SMALL}), "studio").loaded
    assert loaded is not None
    chosen = choose_profile(loaded.stack.profiles, "compact_8gb", {machine.ENVIRONMENT: "development"})
    assert (chosen.profile, chosen.uuids, chosen.why) == ("compact_8gb", ("GPU-a",), ("--profile says so",))


def test_a_machine_that_no_profile_is_for_is_told_so(found: list[FoundGpu]) -> None:
    profiles = load(("stack.yaml",), MemoryFiles({"stack.yaml": SMALL}), "studio").loaded
    assert profiles is not None
    assert found == []
    only = {"generous_80gb": profiles.stack.profiles["generous_80gb"]}
    with pytest.raises(UnknownProfileError, match="no profile can run here"):
        choose_profile(only, None, {})


def test_the_shipped_stack_takes_a_profile_of_its_own_machine(
    verb: Verb, found: list[FoundGpu], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    found += PAIR
    code, out, err = verb("profile", "add", "--from-this-machine", "--print")
    assert code == 0, err
    assert '- {vram: ">=23.9GiB", compute: ">=8.9"}  # NVIDIA GeForce RTX 4090' in out
