"""Values of secrets are in the environment and in files while we work, and in nothing that we make or say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from imageworks.commands.pipeline import compile_stack
from imageworks.commands.unset import unset

Verb = Callable[..., tuple[int, str, str]]
CANARY = "canary-4711-Zq"
STACK = """version: 1
secrets:
  APP_TOKEN: {env: IMAGEWORKS_APP_TOKEN}
  FAR_KEY: {env: IMAGEWORKS_FAR_KEY}
  FILE_KEY: {file: secrets/far.key}
  UNIT_KEY: {credential: unit.key}
models:
  app: {backend: openai, command: [my-server, --port, "${port}"], env: {TOKEN: {secret: APP_TOKEN}, MODE: fast}, vram: {total: 1GiB, because: seen}, placement: cpu}
  unit: {backend: openai, command: [my-server], env: {TOKEN: {secret: UNIT_KEY}}, vram: {total: 1GiB, because: seen}, placement: cpu}
  far: {backend: openai, url: "https://llm.example.org", key: {secret: FAR_KEY}, roles: {chat: 50}}
  filed: {backend: openai, url: "https://llm.example.org", key: {secret: FILE_KEY}}
  united: {backend: openai, url: "https://llm.example.org", key: {secret: UNIT_KEY}}
"""
WITH_CLIENTS = """version: 1
secrets: {CLUB_KEY: {env: CLUB_KEY}, DOOR_KEY: {credential: door.key}}
proxy: {auth: {keys: {club: {key: {secret: CLUB_KEY}}, door: {key: {secret: DOOR_KEY}}}}}
models:
  far: {backend: openai, url: "https://llm.example.org", roles: {chat: 50}}
"""
DEVELOPMENT = Path("generated/development")


@pytest.fixture
def stack(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stack whose secrets all have values."""
    (folder / "stack.yaml").write_text(STACK, "utf-8")
    (folder / "secrets").mkdir()
    (folder / "secrets" / "far.key").write_text(CANARY, "utf-8")
    monkeypatch.setenv("IMAGEWORKS_APP_TOKEN", CANARY)
    monkeypatch.setenv("IMAGEWORKS_FAR_KEY", CANARY)
    return folder


def generated(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text("utf-8") for path in folder.rglob("*") if path.is_file()}


def test_no_generated_file_and_no_answer_holds_a_value(stack: Path, verb: Verb) -> None:
    assert verb("compile")[0] == 0
    files = generated(stack / "generated") | generated(stack / ".imageworks")
    assert len(files) > 20
    assert not [name for name, text in files.items() if CANARY in text]
    asked = [("show", "app"), ("show", "far"), ("show", "--format", "json"), ("why", "models.far.key"), ("roles",),
             ("why", "models.app.env.TOKEN"), ("why", "secrets.FILE_KEY"), ("plan", "--format", "json"), ("check", "--format", "json")]  # fmt: skip
    for words in asked:
        _, out, err = verb(*words)
        assert CANARY not in out + err, words
    assert "TOKEN: secret APP_TOKEN, read at start" in verb("show", "app")[1]
    assert "key: secret FAR_KEY, read when the proxy starts" in verb("show", "far")[1]


def test_exec_specs_and_routes_carry_the_reference(stack: Path, verb: Verb) -> None:
    verb("compile")
    files = stack / DEVELOPMENT
    app = json.loads((files / "exec" / "model-app.json").read_text("utf-8"))
    assert app["secrets"] == {"TOKEN": {"name": "APP_TOKEN", "env": "IMAGEWORKS_APP_TOKEN"}}
    assert app["env"]["MODE"] == "fast"
    assert "IMAGEWORKS_APP_TOKEN" not in app["pass_env"]
    routes = json.loads((files / "routes.json").read_text("utf-8"))["routes"]
    assert {name: route["key"]["name"] for name, route in routes.items() if "key" in route} == {
        "far": "FAR_KEY", "filed": "FILE_KEY", "united": "UNIT_KEY"}  # fmt: skip


def test_the_proxy_gets_what_it_reads_keys_from(stack: Path, verb: Verb) -> None:
    verb("compile")
    proxy = json.loads((stack / DEVELOPMENT / "exec" / "imageworks-proxy.json").read_text("utf-8"))
    assert {"IMAGEWORKS_FAR_KEY", "CREDENTIALS_DIRECTORY"} <= set(proxy["pass_env"])
    assert "secrets" not in proxy


def test_the_proxy_gets_what_it_reads_the_keys_of_clients_from(folder: Path, verb: Verb) -> None:
    (folder / "stack.yaml").write_text(WITH_CLIENTS, "utf-8")
    assert verb("compile")[0] == 0
    proxy = json.loads((folder / DEVELOPMENT / "exec" / "imageworks-proxy.json").read_text("utf-8"))
    assert {"CLUB_KEY", "CREDENTIALS_DIRECTORY"} <= set(proxy["pass_env"])
    unit = (folder / DEVELOPMENT / "systemd" / "imageworks-proxy.service").read_text("utf-8")
    assert "LoadCredential=door.key" in unit
    plan = compile_stack(folder / "stack.yaml").plan("development")
    assert [line.partition(";")[0] for line in unset(plan, folder, {"CLUB_KEY": CANARY})] == [
        "client door cannot show its key: secret DOOR_KEY is not set"
    ]


def test_units_load_the_credentials_of_their_program(stack: Path, verb: Verb) -> None:
    verb("compile")
    units = generated(stack / DEVELOPMENT / "systemd")
    loaded = {
        name: [line for line in text.splitlines() if line.startswith("LoadCredential=")] for name, text in units.items()
    }
    assert {name for name, lines in loaded.items() if lines == ["LoadCredential=unit.key"]} == {
        "model-unit.service", "imageworks-proxy.service"}  # fmt: skip
    assert not loaded["model-app.service"]


def test_llama_swap_reads_secrets_from_its_environment(stack: Path, verb: Verb) -> None:
    text = STACK.replace("  filed:", "#").replace("  united:", "#").replace("  unit:", "#")
    (stack / "stack.yaml").write_text(text + "targets: {llama_swap: {enabled: true}}\n", "utf-8")
    assert verb("compile")[0] == 0
    swap = (stack / DEVELOPMENT / "llama-swap.yaml").read_text("utf-8")
    assert '"TOKEN=${env.IMAGEWORKS_APP_TOKEN}"' in swap
    assert '"apiKey": "${env.IMAGEWORKS_FAR_KEY}"' in swap


def test_llama_swap_cannot_carry_a_secret_in_a_file(stack: Path, verb: Verb) -> None:
    with (stack / "stack.yaml").open("a") as file:
        file.write("targets: {llama_swap: {enabled: true}}\n")
    code, _, err = verb("check", "--format", "concise")
    assert code == 1
    assert [line.split()[1:3] for line in err.splitlines()] == [["IW521", name] for name in ("filed", "unit", "united")]


def test_up_tells_what_it_would_not_find(stack: Path) -> None:
    plan = compile_stack(stack / "stack.yaml").plan("development")
    environ = {"IMAGEWORKS_FAR_KEY": CANARY}
    assert [line.partition(";")[0] for line in unset(plan, stack, environ)] == [
        "app cannot be served: secret APP_TOKEN is not set",
        "unit, united cannot be served: secret UNIT_KEY is not set",
    ]
    (stack / "secrets" / "far.key").unlink()
    assert any("filed cannot be served: secret FILE_KEY: " in line for line in unset(plan, stack, environ))


def test_another_source_of_a_secret_is_a_change_of_its_model(stack: Path, verb: Verb) -> None:
    verb("compile")
    text = STACK.replace("APP_TOKEN: {env: IMAGEWORKS_APP_TOKEN}", "APP_TOKEN: {env: OTHER}")
    (stack / "new.yaml").write_text(text, "utf-8")
    _, out, _ = verb("diff", "stack.yaml", "new.yaml")
    assert "secrets.APP_TOKEN\n  env  IMAGEWORKS_APP_TOKEN -> OTHER  (new.yaml:3)" in out
