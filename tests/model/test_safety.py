from __future__ import annotations

import random
import string
from collections.abc import Callable

import pytest

from imageworks.diagnostics import human
from imageworks.model.load import Outcome
from imageworks.model.safety import looks_secret

Read = Callable[..., Outcome]
HEAD = "version: 1\nmodels:\n  m: {backend: openai, url: 'http://127.0.0.1:9'}\n"
KEY = "sk-" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0z"


@pytest.mark.parametrize(
    "text",
    ["Qwen/Qwen3-VL-8B-Instruct-FP8", "SmolVLM-500M-Instruct-Q8_0.gguf", "mmproj-SmolVLM-500M-Instruct-Q8_0.gguf", "sk-short",
     "qwen3-vl-8b-instruct_(FP8)", "florence-community/Florence-2-large", "IMAGEWORKS_MODELS_AND_MORE_OF_THEM_2026", "a" * 64, "Meta-Llama-31-8B-Instruct-abliterated-Q4KM-v2",
     "Meta-Llama-3.1-8B-Instruct-abliterated-Q4KM", "seed figure; replaced by models.lock after the first measured load"],
)  # fmt: skip
def test_names_are_no_secrets(text: str) -> None:
    assert not looks_secret(text)


@pytest.mark.parametrize("text", [KEY, "hf_" + "x" * 34, "ghp_" + "A1" * 18, "AKIA" + "Q" * 16])
def test_keys_of_services_are_secrets(text: str) -> None:
    assert looks_secret(text)


def test_random_text_is_a_secret() -> None:
    source = random.Random(7)
    texts = ["".join(source.choices(string.ascii_letters + string.digits, k=40)) for _ in range(200)]
    assert sum(map(looks_secret, texts)) > 190


def test_a_secret_is_found_anywhere_and_never_printed(read: Read) -> None:
    text = HEAD.replace("backend", f"aliases: [{KEY}], backend")
    outcome = read(text)
    assert [item.code for item in outcome.diagnostics] == ["IW306"]
    for told in (
        human.full(outcome.diagnostics, outcome.texts),
        human.concise(outcome.diagnostics),
        str(outcome.diagnostics),
    ):
        assert KEY not in told
        assert KEY[5:] not in told


def test_a_secret_is_masked_in_every_finding_of_its_line(read: Read) -> None:
    outcome = read(HEAD + f"proxy: {{key: {KEY}}}\n")
    assert {item.code for item in outcome.diagnostics} == {"IW201", "IW306"}
    assert KEY[5:] not in human.full(outcome.diagnostics, outcome.texts)


def test_hashes_and_revisions_are_no_secrets(read: Read) -> None:
    text = f"version: 1\nmodels:\n  m: {{backend: vllm, source: {{hf: a/b, revision: {'9fb3a1c07de24586b1e0f7ac5d2938460eb71f2c'}}}}}\n"
    assert read(text).diagnostics == ()


@pytest.mark.parametrize("bind", ["0.0.0.0:8100", "192.168.1.5:8100", "'[::]:8100'", "studio.local:8100"])
def test_an_open_bind_does_not_compile(read: Read, bind: str) -> None:
    (found,) = read(HEAD + f"proxy: {{bind: {bind}}}\n").diagnostics
    assert (found.code, found.fixes[0].text) == ("IW330", "bind: 127.0.0.1:8100")


@pytest.mark.parametrize("bind", ["127.0.0.1:8100", "127.0.0.2:9", "localhost:8100", "'[::1]:8100'"])
def test_this_machine_may_always_be_bound(read: Read, bind: str) -> None:
    assert read(HEAD + f"proxy: {{bind: {bind}}}\n").diagnostics == ()
