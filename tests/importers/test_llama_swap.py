from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from imageworks.diagnostics import human
from imageworks.importers import llama_swap
from imageworks.importers.draft import Imported
from imageworks.model.load import load
from imageworks.model.sources import HfSource, PathSource
from imageworks.model.stack import Stack
from imageworks.plan.ir import Plan
from imageworks.source.files import MemoryFiles
from imageworks.source.text import SourceFile

CONFIG = (Path(__file__).parent / "config.yaml").read_text("utf-8")
Told = Callable[[Imported], list[tuple[str, str]]]
Read = Callable[[Imported], Stack]
Swapped = Callable[[str], Imported]


def one(cmd: str, more: str = "") -> str:
    return f"models:\n  m:\n    cmd: >-\n      {cmd}\n{more}"


def test_the_configuration_becomes_this_stack_and_this_report(swapped: Swapped, snapshot: SnapshotAssertion) -> None:
    found = swapped(CONFIG)
    assert found.text == snapshot(name="stack")
    assert human.full(found.diagnostics, found.texts, colour=False, unicode=True) == snapshot(name="report")


def test_it_compiles_on_every_profile(swapped: Swapped, plans: Callable[[Imported], dict[str, Plan]]) -> None:
    assert len(plans(swapped(CONFIG))) == 9


def test_a_llama_server_command_becomes_keys(swapped: Swapped, stack: Read, told: Told) -> None:
    command = "llama-server --port ${PORT} -m /w/x/a.gguf --mmproj /w/x/b.gguf -c 16384 -np 4 -ngl 0 --temp 0.5 -n -1 -t 6 -fa"
    found = swapped(one(command))
    loaded = stack(found)
    model = loaded.models["m"]
    assert model.source == PathSource(path="a.gguf", mmproj="b.gguf")
    assert (model.context, model.concurrency, model.placement) == (4096, 4, "cpu")
    assert (model.sampling.temperature, model.sampling.max_tokens) == (0.5, None)
    assert (loaded.backends.llamacpp.command, loaded.backends.llamacpp.threads) == ("llama-server", 6)
    assert ("IW801", "m: derived, so dropped: --port") in told(found)
    assert ("IW805", "m: no key for -fa") in told(found)


def test_layers_split_between_gpu_and_cpu_are_told(swapped: Swapped, told: Told) -> None:
    assert ("IW805", "m: 20 layers on the GPU cannot be said here") in told(
        swapped(one("llama-server -m a.gguf -ngl 20"))
    )
    assert not [code for code, _ in told(swapped(one("llama-server -m a.gguf -ngl 99"))) if code == "IW805"]


@pytest.mark.parametrize(
    "command",
    [
        "vllm serve org/name --port ${PORT} --max-model-len 6144 --runner pooling",
        "python3 -m vllm.entrypoints.openai.api_server --model org/name --port=${PORT} --max-model-len=6144 --runner=pooling",
        "env CUDA_VISIBLE_DEVICES=0 vllm serve org/name --max-model-len 6144 --runner pooling",
    ],
)
def test_a_vllm_command_becomes_keys_and_flags(swapped: Swapped, stack: Read, command: str) -> None:
    model = stack(swapped(one(command))).models["m"]
    assert (model.backend, model.source, model.context) == ("vllm", HfSource(hf="org/name"), 6144)
    assert (model.vllm, model.capabilities) == ({"runner": "pooling"}, ("embedding",))


def test_any_other_program_is_kept_word_by_word(swapped: Swapped, stack: Read) -> None:
    text = one(
        "'my server' --listen 127.0.0.1:9001 --name ${MODEL_ID} --cost '$5 ${PORT}'",
        "    proxy: http://127.0.0.1:9001\n",
    )
    command = stack(swapped(text)).models["m"].command
    assert command == ("my server", "--listen", "127.0.0.1:${port}", "--name", "${name}", "--cost", "$$5 ${port}")


def test_macros_are_filled_in_last_first_and_a_models_own_win(swapped: Swapped, stack: Read) -> None:
    text = """
macros: {dir: /w, path: "${dir}/m", name: a}
models:
  one: {cmd: "llama-server -m ${path}/${name}.gguf"}
  two: {macros: {name: b}, cmd: "llama-server -m ${path}/${name}.gguf"}
"""
    models = stack(swapped(text)).models
    assert [model.source for model in models.values()] == [PathSource(path="a.gguf"), PathSource(path="b.gguf")]


def test_a_variable_in_front_of_paths_becomes_the_root(swapped: Swapped, stack: Read) -> None:
    loaded = stack(swapped(one("llama-server -m ${env.WEIGHTS}/x/a.gguf")))
    assert loaded.roots.models.env == "WEIGHTS"
    assert loaded.models["m"].source == PathSource(path="x/a.gguf")


@pytest.mark.parametrize(
    ("command", "message", "at"),
    [
        ("llama-server -m a.gguf | tee log", "m is left out: `|` is shell syntax, and there is no shell", "|"),
        (
            "llama-server -m $(pwd)/a.gguf",
            "m is left out: `$(pwd)/a.gguf` is shell syntax, and there is no shell",
            "$(pwd)/a.gguf",
        ),
        ("sh -c 'llama-server'", "m is left out: it runs a shell; name the program and its words", "sh"),
        ("llama-server -m ${nope}/a.gguf", "m is left out: no macro is called `nope`", "${nope}"),
        ("llama-server 'a", "m is left out: its quotes do not close: no closing quotation", None),
        ("# only words", "m is left out: it is empty", None),
    ],
)
def test_what_is_not_understood_is_refused_at_its_place(
    swapped: Swapped, command: str, message: str, at: str | None
) -> None:
    text = one(command)
    found = swapped(text)
    (finding,) = (item for item in found.diagnostics if item.code == "IW807")
    assert finding.message == message
    assert finding.primary is not None
    assert text[finding.primary.span.start : finding.primary.span.end] == (at or "cmd")
    assert found.text is None


def test_idle_times_and_pinning(swapped: Swapped, stack: Read) -> None:
    text = """
globalTTL: 900
healthCheckTimeout: 60
groups: {always: {persistent: true, swap: false, exclusive: false, members: [kept]}}
models:
  timed: {cmd: llama-server -m a.gguf, ttl: 30}
  endless: {cmd: llama-server -m b.gguf, ttl: 0}
  silent: {cmd: llama-server -m c.gguf}
  kept: {cmd: llama-server -m d.gguf, ttl: 0}
"""
    loaded = stack(swapped(text))
    assert (loaded.defaults.grace, loaded.defaults.start_timeout) == (900, 60)
    assert [loaded.models[name].grace for name in ("timed", "endless", "silent", "kept")] == [
        30,
        366 * 86400,
        None,
        None,
    ]
    assert [loaded.models[name].keep for name in ("endless", "kept")] == ["grace", "pinned"]


def test_servers_elsewhere_are_reached_by_url(swapped: Swapped, stack: Read, told: Told) -> None:
    text = """
models: {far: {cmd: ssh box run, proxy: "http://192.168.1.5:8080"}}
peers:
  box: {proxy: "http://192.168.1.6", models: [near-enough, has/slash]}
  paid: {proxy: "https://example.org", apiKey: hunter2, models: [x, y]}
  open-router: {proxy: "https://example.net", apiKey: "${env.ROUTER}", models: [z]}
"""
    found = swapped(text)
    assert {name: model.url for name, model in stack(found).models.items()} == {
        "far": "http://192.168.1.5:8080",
        "near-enough": "http://192.168.1.6",
        "x": "https://example.org",
        "y": "https://example.org",
        "z": "https://example.net",
    }
    assert {name: model.key.secret for name, model in stack(found).models.items() if model.key} == {
        "x": "PAID_KEY",
        "y": "PAID_KEY",
        "z": "OPEN_ROUTER_KEY",
    }
    assert {name: secret.env for name, secret in stack(found).secrets.items()} == {
        "PAID_KEY": "IMAGEWORKS_PAID_KEY",
        "OPEN_ROUTER_KEY": "ROUTER",
    }
    assert "hunter2" not in f"{found.text}{[(item.message, item.notes) for item in found.diagnostics]}"
    assert ("IW802", "has/slash of peer box is left out: not a free id") in told(found)
    assert [item for item in told(found) if item[0] == "IW808"] == [("IW808", "the key of peer paid is not copied")]


def test_a_program_keeps_its_environment_but_no_secret(swapped: Swapped, stack: Read, told: Told) -> None:
    env = '    env: [MODE=fast, "EMPTY=", CUDA_VISIBLE_DEVICES=0, "TOKEN=sk-aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0z", "FROM=${env.HOME}", "PRICE=$5"]\n'
    found = swapped(one("my-server --port ${PORT}", env))
    assert stack(found).models["m"].env == {"MODE": "fast", "EMPTY": "", "PRICE": "$5"}
    assert "sk-aB3" not in f"{found.text}{[(item.message, item.notes) for item in found.diagnostics]}"
    assert [item for item in told(found) if item[0] in {"IW801", "IW805"}] == [
        ("IW801", "m: which GPU it sees follows from the plan"),
        ("IW805", "m: `env.TOKEN` is not carried over: a secret stands in the file"),
    ]
    assert ("IW806", "m: from where do these get their values? FROM") in told(found)
    engine = told(swapped(one("llama-server -m a.gguf", "    env: [MODE=fast]\n")))
    assert ("IW805", "m: no key for the environment of this engine: MODE") in engine


def test_no_secret_is_copied(swapped: Swapped, told: Told) -> None:
    text = 'apiKeys: ["sk-hunter2hunter2hunter2"]\n' + one("llama-server -m a.gguf --api-key sk-abcdefghijklmnopqrst")
    found = swapped(text)
    assert "hunter2" not in f"{found.text}{[item.message for item in found.diagnostics]}"
    assert "sk-abc" not in str(found.text)
    assert [message for code, message in told(found) if code == "IW808"] == [
        "m: --api-key is not copied",
        "apiKeys 1 are not copied",
    ]


def test_a_misspelt_key_is_named_with_what_was_meant(swapped: Swapped) -> None:
    found = swapped("globalTtl: 5\n" + one("llama-server -m a.gguf", "    alias: [x]\n"))
    notes = [(item.message, *item.notes) for item in found.diagnostics if "unknown key" in item.message]
    assert notes == [
        ("unknown key `globalTtl`", "did you mean `globalTTL`? llama-swap ignores it as well"),
        ("unknown key `alias`", "did you mean `aliases`? llama-swap ignores it as well"),
    ]


def test_names_that_are_no_ids_go_on_working(swapped: Swapped, stack: Read, told: Told) -> None:
    found = swapped(
        'models: {"Big Model": {cmd: llama-server -m a.gguf, aliases: [gpt]}, big-model: {cmd: llama-server -m b.gguf, aliases: [gpt]}}'
    )
    assert {name: model.aliases for name, model in stack(found).models.items()} == {
        "big-model": ("Big Model", "gpt"),
        "big-model-model": (),
    }
    assert ("IW804", "big-model: `gpt` already names another model") in told(found)


def test_an_anchor_costs_only_the_model_that_uses_it(swapped: Swapped, stack: Read) -> None:
    text = "models:\n  a: &a {cmd: llama-server -m a.gguf}\n  b: *a\n  c: {cmd: llama-server -m c.gguf}\n"
    found = swapped(text)
    assert list(stack(found).models) == ["a", "c"]
    assert [item.primary.span.line for item in found.diagnostics if item.code == "IW104" and item.primary] == [2, 3]


@pytest.mark.parametrize(
    "text", ["", "a", "models: [x]", "models: {}", "models: {a: 1", "\tmodels:\n", "models: {a: {cmd: [1]}}"]
)
def test_what_is_no_configuration_is_refused(swapped: Swapped, text: str) -> None:
    found = swapped(text)
    assert found.text is None
    assert any(item.is_error for item in found.diagnostics)


PIECES = st.sampled_from(
    ["${PORT}", "${env.X}", "${", "}", "'", '"', "\\", "#", "-m", "-c", "-np", "0", "-1", "99999999999", "a.gguf", "/x/y", "~/z",
     "llama-server", "vllm", "serve", "o/n", "--dtype", "--max-model-len", "$", "%", "\n", " ", "é", "${dir}", "..", "docker"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, max_size=12), st.integers(0, len(CONFIG)), st.integers(0, 40))
def test_whatever_stands_in_it_the_stack_loads_or_there_is_none(pieces: list[str], start: int, cut: int) -> None:
    def front_end(text: str) -> Any:
        return load("stack.yaml", MemoryFiles({"stack.yaml": text}), "x").diagnostics

    for text in (CONFIG[:start] + "".join(pieces) + CONFIG[start + cut :], one(" ".join(pieces).replace("\n", " "))):
        found = llama_swap.convert(SourceFile("c.yaml", text), front_end)
        if found.text is None:
            assert any(item.is_error for item in found.diagnostics)
        else:
            assert not [item for item in front_end(found.text) if item.is_error]
