from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageworks.model.load import Outcome, load
from imageworks.source.files import DiskFiles, MemoryFiles

Read = Callable[..., Outcome]
ROOT = Path(__file__).parents[2]
HEAD = "version: 1\nmodels:\n  m: {backend: llamacpp, source: {path: m.gguf}, roles: {chat: 50}}\n"


def test_the_shipped_stack_has_no_finding() -> None:
    outcome = load("stack.yaml", DiskFiles(ROOT), ROOT.name)
    assert outcome.diagnostics == ()
    assert outcome.loaded is not None
    assert len(outcome.loaded.stack.models) == 9
    assert len(outcome.loaded.prompt_profiles) == 9


def test_inputs_are_hashed_by_their_bytes(read: Read) -> None:
    prompt = "version: 1\nuser: hi\n"
    outcome = read(HEAD, {"prompts/base/app/p.yaml": prompt, "models.lock": '{"schema": 1, "models": {}}'})
    assert outcome.loaded is not None
    assert list(outcome.loaded.inputs) == ["models.lock", "prompts/base/app/p.yaml", "stack.yaml"]
    assert outcome.loaded.inputs["stack.yaml"] == hashlib.sha256(HEAD.encode()).hexdigest()


def test_a_missing_stack_is_one_finding() -> None:
    outcome = load("stack.yaml", MemoryFiles({}), "x")
    assert (outcome.loaded, [item.code for item in outcome.diagnostics]) == (None, ["IW110"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "top level"),
        ('{"schema": 9}', "newer ImageWorks (schema 9, known: 1)"),
        ('{"schema": 1, "models": {"m": {"origin": "guess"}}}', "models.m.origin"),
    ],
)
def test_a_lock_that_cannot_be_used_is_told(read: Read, text: str, reason: str) -> None:
    (found,) = read(HEAD, {"models.lock": text}).diagnostics
    assert found.primary is not None
    assert (found.code, found.primary.span.file) == ("IW113", "models.lock")
    assert reason in found.primary.text


def test_a_lock_that_is_no_text_is_told() -> None:
    outcome = load("stack.yaml", MemoryFiles({"stack.yaml": HEAD, "models.lock": b"\xff"}), "x")
    assert [item.code for item in outcome.diagnostics] == ["IW105"]


def test_facts_of_the_lock_are_handed_over(read: Read) -> None:
    lock = '{"schema": 1, "models": {"m": {"origin": "file", "weights_bytes": 5}}}'
    outcome = read(HEAD, {"models.lock": lock})
    assert outcome.loaded is not None
    assert outcome.loaded.lock.models["m"].weights_bytes == 5


def test_findings_come_in_the_order_of_the_file(read: Read) -> None:
    found = read("proxy: {bind: 0.0.0.0:1}\n" + HEAD.replace("chat", "chta") + "defaults: {grace: 1}\n").diagnostics
    assert [item.code for item in found] == ["IW330", "IW301", "IW204"]


def test_a_place_without_a_value_of_its_own_is_that_of_its_key(read: Read) -> None:
    loaded = read(HEAD).loaded
    assert loaded is not None
    model, context = loaded.key("models", "m"), loaded.value("models", "m", "context")
    assert model is not None
    assert model == context
    assert (model.line, model.column) == (3, 3)
    assert loaded.key("nowhere") is None


@given(
    st.lists(
        st.sampled_from(
            ["version: 1\n", "models:\n", "  m: {backend: llamacpp}\n", "  m:\n", "    source: {path: x}\n", "    backend: vllm\n",
             "profiles:\n", "  p: {match: {gpus: 1}}\n", "    roles: {chat: 1, x: 2}\n", "groups: {g: {models: [m], profiles: [p]}}\n",
             "roles: []\n", "roles: {chat: {fallback: [chat]}}\n", "prompts: {bind: {a.b: x}}\n", "proxy: 5\n", "targets:\n", "name: [x]\n",
             "defaults: {context: {at_least: 1}}\n", "prompts: {path: [a], layers: {b: c}}\n", "  m: *x\n", "roots: {models: }\n", "\t\n"]
        ),
        max_size=12,
    ).map("".join)
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_no_stack_makes_the_loader_raise(text: str) -> None:
    outcome = load("stack.yaml", MemoryFiles({"stack.yaml": text}), "x")
    assert (outcome.loaded is None) == any(item.is_error for item in outcome.diagnostics)
