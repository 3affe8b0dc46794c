from __future__ import annotations

from collections.abc import Callable

import pytest

from imageworks.model.backends import BACKENDS
from imageworks.model.grammar import keys_at
from imageworks.model.load import Outcome
from imageworks.model.sources import SOURCE_KINDS

Read = Callable[..., Outcome]


def stack(*models: str) -> str:
    lines = "".join(f"  m{number}: {{{text}}}\n" for number, text in enumerate(models))
    return f"version: 1\nmodels:\n{lines}"


@pytest.mark.parametrize(
    "text",
    [
        "backend: vllm, source: {path: x}, vllm: {runner: pooling}",
        "backend: llamacpp, source: {path: x.gguf, mmproj: y.gguf}",
        "backend: llamacpp, source: {hf: a/b, file: x.gguf, mmproj: y.gguf, revision: main}",
        "backend: llamacpp, source: {package: p, version: 1.10, file: a/x.gguf, sha256: " + "0" * 64 + "}",
        "backend: ollama, source: {ollama: 'qwen2.5vl:7b-q4_K_M'}",
        "backend: openai, url: 'http://127.0.0.1:9/'",
        "backend: openai, command: [serve, '${port}'], source: {hf: a/b}",
        "backend: openai, command: [serve]",
    ],
)
def test_each_backend_takes_its_own_keys(read: Read, text: str) -> None:
    assert read(stack(text)).diagnostics == ()


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("backend: llamacpp, source: {path: x}, vllm: {}", "IW201", "`vllm` does not belong to backend llamacpp"),
        ("backend: vllm, source: {path: x}, command: [x]", "IW201", "`command` does not belong to backend vllm"),
        ("backend: ollama, source: {ollama: x}, url: 'http://x'", "IW201", "`url` does not belong to backend ollama"),
        ("backend: vllm, source: {path: x, mmproj: y}", "IW201", "`mmproj` does not belong to backend vllm"),
        ("backend: vllm, source: {hf: a/b, file: y}", "IW201", "`file` does not belong to backend vllm"),
        ("backend: vllm, source: {path: x, file: y}", "IW201", "`file` does not belong here"),
        ("backend: vllm", "IW202", "`source` is missing"),
        ("backend: openai", "IW220", "how is this server reached?"),
        ("backend: openai, url: 'http://x', command: [y]", "IW220", "`url` and `command` exclude each other"),
        ("backend: openai, url: 'http://x', source: {path: y}", "IW220", "`url` and `source` exclude each other"),
        ("backend: vllm, source: {ollama: x}", "IW307", "backend vllm cannot read a source of kind ollama"),
        ("backend: llamacpp, source: {hf: a/b}", "IW307", "which file of the repository?"),
        ("backend: vllm, source: {path: x, hf: a/b}", "IW307", "a source names one place"),
        ("backend: vllm, source: {}", "IW307", "a source names a place"),
        ("backend: vllm, source: {hf: noslash}", "IW213", "`noslash` is not a repository"),
        ("backend: vllm, source: {hf: ../..}", "IW213", "`../..` is not a repository"),
        ("backend: openai, command: []", "IW213", "`command` is empty"),
        ("backend: ollama, source: {ollama: ''}", "IW213", "`ollama` is empty"),
        ("backend: vllm, source: x", "IW200", "`source` wants a map, not a single value"),
        ("backend: llamacpp, source: {package: p, file: x, sha256: " + "0" * 64 + "}", "IW202", "`version` is missing"),
    ],
)
def test_what_does_not_go_with_a_backend_is_told(read: Read, text: str, code: str, message: str) -> None:
    (found,) = read(stack(text)).diagnostics
    assert (found.code, found.message) == (code, message)


def test_a_source_of_another_model_is_judged_by_its_end(read: Read) -> None:
    ollama, through = "backend: ollama, source: {ollama: x}", "backend: ollama, source: {same_as: m0}"
    assert read(stack(ollama, through, "backend: ollama, source: {same_as: m1}")).diagnostics == ()
    (found,) = read(stack(ollama, through, "backend: vllm, source: {same_as: m1}")).diagnostics
    assert (found.code, found.message) == ("IW307", "backend vllm cannot read a source of kind ollama")


def test_the_tables_know_the_declared_words() -> None:
    assert keys_at(("models", "m", "source")) == {key for part in SOURCE_KINDS.values() for key in part.model_fields}
    assert set(BACKENDS) == {"vllm", "llamacpp", "ollama", "openai"}
