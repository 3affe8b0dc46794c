from __future__ import annotations

from collections.abc import Callable

import pytest

from imageworks.model.load import Outcome

Read = Callable[..., Outcome]
HEAD = "version: 1\nvariables: {HOST: box, DIR: sub/dir, NUMBER: '3', DOLLAR: 'a$b${{'}\nmodels:\n"


def model(read: Read, text: str) -> dict[str, object]:
    outcome = read(HEAD.replace("${{", "") + f"  m: {text}\n")
    assert outcome.loaded is not None, outcome.diagnostics
    return outcome.loaded.stack.models["m"].model_dump(exclude_unset=True)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("{backend: openai, url: 'http://${HOST}:8000'}", "url", "http://box:8000"),
        ("{backend: ollama, source: {ollama: x}, aliases: ['${HOST}-${NUMBER}']}", "aliases", ("box-3",)),
        ("{backend: ollama, source: {ollama: '${HOST}/x'}}", "source", {"ollama": "box/x"}),
        ("{backend: llamacpp, source: {path: '${DIR}/m.gguf'}}", "source", {"path": "sub/dir/m.gguf"}),
        ("{backend: llamacpp, source: {path: '$$x/$y'}}", "source", {"path": "$x/$y"}),
        ("{backend: vllm, source: {path: m}, vllm: {a: '${NUMBER}', b: {c: '${HOST}'}}}", "vllm", {"a": "3", "b": {"c": "box"}}),
        ("{backend: openai, command: [run, '${HOST}', '${port}', '$$', '${DOLLAR}']}", "command", ("run", "box", "${port}", "$$", "a$$b")),
    ],
)  # fmt: skip
def test_a_variable_reaches_every_text(read: Read, text: str, key: str, value: object) -> None:
    assert model(read, text)[key] == value


def test_a_filled_flag_is_a_text_whatever_stands_in_it(read: Read) -> None:
    text = "variables: {N: '3'}\nversion: 1\nmodels:\n  m:\n    backend: vllm\n    source: {path: m}\n    vllm:\n      seed: ${N}\n"
    outcome = read(text)
    assert outcome.loaded is not None
    assert outcome.loaded.stack.models["m"].vllm == {"seed": "3"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{backend: '${HOST}', source: {path: m}}", "cannot stand here"),
        ("{backend: ollama, source: {ollama: x}, context: '${NUMBER}'}", "cannot stand here"),
        ("{backend: ollama, source: {ollama: x}, grace: '${NUMBER}m'}", "cannot stand here"),
        ("{backend: ollama, source: {same_as: '${HOST}'}}", "cannot stand here"),
        ("{backend: ollama, source: {ollama: x}, roles: {'${HOST}': 5}}", "cannot stand in a key"),
        ("{backend: ollama, source: {ollama: '${HOTS}'}}", "unknown variable `HOTS`"),
        ("{backend: ollama, source: {ollama: '${PATH}'}}", "unknown variable `PATH`"),
        ("{backend: ollama, source: {ollama: 'a${HOST'}}", "not closed"),
        ("{backend: openai, command: [run, '${prot}']}", "unknown variable `prot`"),
    ],
)
def test_a_variable_elsewhere_is_the_only_thing_told(read: Read, text: str, says: str) -> None:
    outcome = read(HEAD.replace("${{", "") + f"  m: {text}\n")
    (found,) = outcome.diagnostics
    assert found.code == "IW315"
    assert says in found.message


def test_a_misspelt_variable_is_proposed(read: Read) -> None:
    (found,) = read(
        "version: 1\nvariables: {HOST: box}\nmodels: {m: {backend: ollama, source: {ollama: '${HOTS}'}}}\n"
    ).diagnostics
    assert found.primary is not None
    assert found.primary.text == "did you mean `${HOST}`?"


def test_a_variable_holds_no_other_and_has_a_capital_name(read: Read) -> None:
    outcome = read("version: 1\nvariables: {A: x, B: '${A}', low: y}\nmodels: {}\n")
    assert sorted((item.code, item.message) for item in outcome.diagnostics) == [
        ("IW211", "`low` cannot name a variable"),
        ("IW315", "a variable cannot hold another"),
    ]


def test_the_environment_is_never_read(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTSIDE", "secret")
    (found,) = read("version: 1\nmodels: {m: {backend: ollama, source: {ollama: '${OUTSIDE}'}}}\n").diagnostics
    assert "secret" not in found.message


def test_a_higher_layer_changes_a_variable(read: Read) -> None:
    files = {"a.yaml": "variables: {TAG: low}\nmodels: {m: {backend: ollama, source: {ollama: 'x:${TAG}'}}}\n"}
    outcome = read("version: 1\ninclude: [a.yaml]\nvariables: {TAG: high}\n", files)
    assert outcome.loaded is not None
    assert outcome.loaded.stack.models["m"].model_dump()["source"] == {"ollama": "x:high"}
