"""Secrets are references: declared, named where they may stand, refused everywhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from imageworks.diagnostics import human, machine
from imageworks.model.load import Outcome

Read = Callable[..., Outcome]
HEAD = "version: 1\nsecrets: {API_KEY: {env: IMAGEWORKS_API_KEY}}\nmodels:\n"
OWN = HEAD + "  own: {backend: openai, command: [serve], env: {TOKEN: {secret: API_KEY}, MODE: fast}}\n"
FAR = HEAD + "  far: {backend: openai, url: 'https://llm.example.org', key: {secret: API_KEY}}\n"


def codes(outcome: Outcome) -> list[str]:
    return [item.code for item in outcome.diagnostics]


@pytest.mark.parametrize("text", [OWN, FAR, OWN.replace("{env: IMAGEWORKS_API_KEY}", "{file: secrets/api.key}"),
                                  OWN.replace("env: IMAGEWORKS_API_KEY", "credential: api.key")])  # fmt: skip
def test_a_secret_is_declared_and_named(read: Read, text: str) -> None:
    assert read(text).diagnostics == ()


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("  m: {backend: vllm, source: {path: m}, vllm: {api-key: {secret: API_KEY}}}", "command line"),
        ("  m: {backend: vllm, source: {path: m}, vllm: {hf-overrides: {deep: {secret: API_KEY}}}}", "command line"),
        ("  m: {backend: openai, command: [serve, {secret: API_KEY}]}", "command line"),
        ("  m: {backend: openai, url: {secret: API_KEY}}", "generated files"),
        ("  m: {backend: openai, url: 'http://h:1', aliases: [{secret: API_KEY}]}", "generated files"),
        ("  m: {backend: openai, url: 'http://h:1', params: {set: {user: {secret: API_KEY}}}}", "generated files"),
        ("variables: {KEY: {secret: API_KEY}}", "written out"),
        ("roots: {models: {default: {secret: API_KEY}}}", "generated files"),
        ("prompts: {path: {secret: API_KEY}}", "generated files"),
        ("profiles: {development: {override: {models: {far: {url: {secret: API_KEY}}}}}}", "generated files"),
    ],
)
def test_a_secret_that_would_be_written_is_refused_where_it_stands(read: Read, line: str, place: str) -> None:
    (found,) = read(FAR + line + "\n").diagnostics
    assert (found.code, found.message) == ("IW305", "secret API_KEY would be written into a file")
    assert found.primary is not None
    assert found.primary.span.line == 5
    assert place in found.primary.text
    assert found.fixes


def test_a_secret_is_no_variable(read: Read) -> None:
    (found,) = read(FAR.replace("https://llm", "https://${API_KEY}")).diagnostics
    assert (found.code, found.fixes[0].text[-17:]) == ("IW305", "{secret: API_KEY}")


def test_a_misspelt_secret_is_repaired(read: Read) -> None:
    (found,) = read(FAR.replace("secret: API_KEY", "secret: APIKEY")).diagnostics
    assert (found.code, found.fixes[0].edits[0].replacement) == ("IW305", "API_KEY")


@pytest.mark.parametrize("source", ["{}", "{env: A, file: b}", "{env: A, file: b, credential: c}"])
def test_a_secret_has_exactly_one_source(read: Read, source: str) -> None:
    assert codes(read(FAR.replace("{env: IMAGEWORKS_API_KEY}", source))) == ["IW305"]


@pytest.mark.parametrize(
    "value", ["hunter2", "'hunter2 with blanks'", "sk-aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0z", '"hunter2"']
)
def test_a_key_in_clear_is_refused_and_shown_nowhere(read: Read, value: str) -> None:
    outcome = read(FAR.replace("{secret: API_KEY}", value))
    assert codes(outcome) == ["IW306"]
    bare = value.strip("'\"")
    for told in (
        human.full(outcome.diagnostics, outcome.texts),
        human.concise(outcome.diagnostics),
        machine.json(outcome.diagnostics),
    ):
        assert bare not in told
        assert bare[4:] not in told
        assert bare[:4] not in told or len(bare) > 20


@pytest.mark.parametrize(
    "word", ["--api-key=sk-aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0z", "Bearer sk-aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0z"]
)
def test_a_key_inside_a_word_of_a_command_is_found(read: Read, word: str) -> None:
    assert codes(read(OWN.replace("[serve]", f"[serve, '{word}']"))) == ["IW306"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FAR.replace("key:", "env: {A: b}, key:"), "`env` is for a model with `command`"),
        (OWN.replace("env: {TOKEN", "key: {secret: API_KEY}, env: {TOKEN"), "`key` is for a model with `url`"),
    ],
)
def test_a_key_or_variable_without_effect_is_told(read: Read, text: str, expected: str) -> None:
    assert [(item.code, item.message) for item in read(text).diagnostics] == [("IW220", expected)]


def test_other_backends_take_neither(read: Read) -> None:
    text = HEAD + "  m: {backend: vllm, source: {path: m}, env: {A: b}, key: {secret: API_KEY}}\n"
    assert codes(read(text)) == ["IW201", "IW201"]


@pytest.mark.parametrize(
    "line", ["roles: {secret: {requires: [chat]}}", "  secret: {backend: openai, url: 'http://h:1'}"]
)
def test_secret_is_a_name_like_any_other(read: Read, line: str) -> None:
    assert read(FAR + line + "\n").diagnostics == ()


def test_a_role_called_secret_may_be_served(read: Read) -> None:
    text = FAR.replace("key:", "roles: {secret: 50}, key:") + "roles: {secret: {requires: [chat]}}\n"
    assert read(text).diagnostics == ()


@pytest.mark.parametrize("name", ["1A", "A-B", "A B", ""])
def test_variables_of_a_program_have_names(read: Read, name: str) -> None:
    assert codes(read(OWN.replace("MODE", f"'{name}'"))) == ["IW213"]


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "IMAGEWORKS_STACK"])
def test_variables_that_the_launcher_sets_are_derived(read: Read, name: str) -> None:
    assert codes(read(OWN.replace("MODE", name))) == ["IW510"]
