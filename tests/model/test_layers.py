from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from imageworks.model.layers import built_in
from imageworks.model.load import Outcome
from imageworks.model.loaded import BUILT_IN, Loaded

Read = Callable[..., Outcome]
ROOT = Path(__file__).parents[2]
HEAD = "version: 1\nmodels:\n  m: {backend: llamacpp, source: {path: m.gguf}, roles: {chat: 50}}\n"
NINE = [
    "balanced_24gb", "compact_12gb", "compact_8gb", "constrained_16gb", "development",
    "generous_80gb", "generous_96gb", "multi_gpu_2x16gb", "roomy_40gb",
]  # fmt: skip


def loaded(outcome: Outcome) -> Loaded:
    assert outcome.loaded is not None, outcome.diagnostics
    return outcome.loaded


def test_the_smallest_stack_of_six_lines_loads(read: Read) -> None:
    text = """\
version: 1
models:
  gemma-4b:
    backend: llamacpp
    source: {path: gemma-3-4b-it-Q4_K_M.gguf}
    roles: {chat: 50}
"""
    stack = loaded(read(text, folder="My Studio")).stack
    assert stack.name == "my-studio"
    assert sorted(stack.profiles) == NINE
    assert len(stack.roles) == 11
    assert stack.proxy.bind == ("127.0.0.1", 8100)
    assert (stack.defaults.context, stack.defaults.concurrency, stack.defaults.grace) == (8192, 2, 300)
    assert stack.defaults.start_timeout == 180
    assert stack.roots.models.default == "models"


def test_the_built_in_layer_says_what_the_shipped_stack_says(read: Read) -> None:
    shipped = read((ROOT / "stack.yaml").read_text("utf-8"), prompt_files())
    ours, theirs = loaded(read(HEAD)).stack, loaded(shipped).stack
    assert ours.profiles == theirs.profiles
    assert ours.defaults == theirs.defaults
    assert ours.roots == theirs.roots
    assert {name: role for name, role in ours.roles.items() if name != "iqa"} == {
        name: role for name, role in theirs.roles.items() if name != "iqa"
    }


def prompt_files() -> dict[str, str]:
    files = (ROOT / "prompts").rglob("*.yaml")
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in files}


@pytest.mark.parametrize(("folder", "name"), [("My Studio (2)", "my-studio-2"), ("写真", "stack"), ("", "stack")])
def test_a_stack_without_a_name_is_called_after_its_folder(read: Read, folder: str, name: str) -> None:
    assert loaded(read(HEAD, folder=folder)).stack.name == name
    assert loaded(read(HEAD + "name: mine\n", folder=folder)).stack.name == "mine"


def test_a_profile_without_match_adjusts_the_built_in_one(read: Read) -> None:
    stack = loaded(read(HEAD + "profiles: {constrained_16gb: {headroom: 0.5GiB}}\n")).stack
    assert sorted(stack.profiles) == NINE
    assert stack.profiles["constrained_16gb"].headroom == 1 << 29
    assert stack.profiles["constrained_16gb"].start_timeout == 120


def test_a_declared_profile_leaves_only_development_beside_it(read: Read) -> None:
    stack = loaded(read(HEAD + 'profiles: {constrained_16gb: {match: {gpus: 1, vram: ">=15GiB"}}}\n')).stack
    assert sorted(stack.profiles) == ["constrained_16gb", "development"]
    assert stack.profiles["constrained_16gb"].start_timeout is None
    assert stack.profiles["constrained_16gb"].headroom == 1 << 30


def test_development_can_be_adjusted_beside_declared_profiles(read: Read) -> None:
    text = 'profiles: {mine: {match: {gpus: 1, vram: ">=15GiB"}}, development: {host_memory: 2GiB}}\n'
    stack = loaded(read(HEAD + text)).stack
    assert stack.profiles["development"].host_memory == 2 << 30
    assert stack.profiles["development"].grace == 120


def test_adjusting_a_profile_that_is_left_out_is_told(read: Read) -> None:
    text = 'profiles:\n  mine: {match: {gpus: 1, vram: ">=15GiB"}}\n  balanced_24gb: {headroom: 2GiB}\n'
    (found,) = read(HEAD + text).diagnostics
    assert found.primary is not None
    assert (found.code, found.primary.span.line, found.secondary[0].span.line) == ("IW212", 6, 5)


def test_a_role_of_the_file_is_laid_over_the_built_in_one(read: Read) -> None:
    outcome = loaded(read(HEAD + "roles: {caption: {max_tokens: 99}, mine: {requires: [chat]}}\n"))
    caption = outcome.stack.roles["caption"]
    assert (caption.max_tokens, caption.requires, caption.fallback) == (99, ("vision",), ("vision_general",))
    assert outcome.named_roles == {"caption", "mine"}
    assert len(outcome.stack.roles) == 12


def test_values_know_their_layer(read: Read) -> None:
    outcome = loaded(read(HEAD + "defaults: {grace: 10m}\n"))
    spans = {key: outcome.value("defaults", key) for key in ("grace", "context")}
    assert {key: span.file for key, span in spans.items() if span is not None} == {
        "grace": "stack.yaml",
        "context": BUILT_IN,
    }


def test_every_place_leads_back_to_its_text(read: Read) -> None:
    outcome = read(HEAD)
    texts = outcome.texts
    for path, place in loaded(outcome).places.items():
        if path and place.key is not None:
            assert texts[place.key.file][place.key.start : place.key.end] == path[-1]
    assert texts[BUILT_IN] == built_in()[0].text
