from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from imageworks.diagnostics import human
from imageworks.importers import registry
from imageworks.importers.draft import Imported
from imageworks.model.load import load
from imageworks.model.sources import HfSource, OllamaSource, PathSource
from imageworks.model.stack import Stack
from imageworks.plan.ir import Plan
from imageworks.source.files import MemoryFiles
from imageworks.source.text import SourceFile

HERE = Path(__file__).parent
Told = Callable[[Imported], list[tuple[str, str]]]
Read = Callable[[Imported], Stack]
Make = Callable[..., Imported]
GEMMA = {"backend": "ollama", "backend_config": {"model_path": "ollama:/gemma3:4b"}, "capabilities": {"text": True}}


def vllm(**more: Any) -> dict[str, Any]:
    args = more.pop("args", [])
    config = {"port": 24001, "model_path": "/home/someone/weights/a/b", "extra_args": args}
    return {"backend": "vllm", "backend_config": config, "source": {"huggingface_id": "a/b"}, **more}


def test_the_studio_becomes_this_stack_and_this_report(studio: Imported, snapshot: SnapshotAssertion) -> None:
    assert studio.text == snapshot(name="stack")
    assert human.full(studio.diagnostics, studio.texts, colour=False, unicode=True) == snapshot(name="report")


def test_the_studio_compiles_on_every_profile(studio: Imported, plans: Callable[[Imported], dict[str, Plan]]) -> None:
    keywords = next(role for role in plans(studio)["constrained_16gb"].roles if role.name == "keywords")
    best = keywords.candidates[0]
    assert (best.model, best.priority, best.vram_mib) == ("florence-2-large-safetensors", 95, 3500)


def test_no_home_folder_reaches_the_stack(studio: Imported) -> None:
    assert "someone" not in str(studio.text)
    assert any("/home/someone/ai-models/weights" in item.message for item in studio.diagnostics)


def test_curated_wins_and_discovered_fills_in(stack: Read) -> None:
    curated = [{"name": "x", "quantization": "fp8", "roles": None, "generation_defaults": {"temperature": 0.1}}]
    discovered = [
        {"name": "x", "roles": ["chat"], "generation_defaults": {"temperature": 0.9, "top_p": 0.5}, **vllm()},
        {"name": "y", **GEMMA},
    ]
    files = [SourceFile(name, json.dumps(data)) for name, data in (("c.json", curated), ("d.json", discovered))]
    found = stack(registry.convert(files[0], files[1], lambda _: ()))
    assert set(found.models) == {"x", "y"}
    assert found.models["x"].quantization == "fp8"
    assert found.models["x"].roles == {"chat": 50}
    assert (found.models["x"].sampling.temperature, found.models["x"].sampling.top_p) == (0.1, 0.5)


def test_two_names_of_one_ollama_tag_are_one_model_that_answers_to_both(entries: Make, stack: Read, told: Told) -> None:
    latest = {**GEMMA, "backend_config": {"model_path": "ollama:/gemma3"}}
    found = entries(
        {**latest, "name": "old (Q4)"},
        {**latest, "name": "new_(Q4)", "roles": ["chat"], "backend_config": {"model_path": "ollama:/gemma3:latest"}},
    )
    assert [(name, model.aliases) for name, model in stack(found).models.items()] == [
        ("new-q4", ("new_(Q4)", "old (Q4)"))
    ]
    assert ("IW804", "old (Q4) and new_(Q4) are one model") in told(found)


def test_the_text_none_is_no_name(entries: Make, told: Told) -> None:
    found = entries({**vllm(), "served_model_id": "None"})
    assert "None" not in str(found.text)
    assert ("IW803", 'm0: served_model_id is the text "None"') in told(found)


def test_a_figure_of_the_files_size_is_weights_and_any_other_a_total(entries: Make, stack: Read) -> None:
    size = 10_605_588_977
    found = stack(
        entries(
            {**vllm(), "vram_estimate_mb": 10600, "download_size_bytes": size},
            {**vllm(), "vram_estimate_mb": 12000, "download_size_bytes": size},
            vllm(),
        )
    )
    assert found.models["m0"].vram.weights == -(-size // 2**20) * 2**20
    assert found.models["m1"].vram.total == 12000 * 2**20
    assert found.models["m2"].vram.weights is None
    assert found.models["m2"].vram.total is None


def test_flags_become_keys_or_stay_flags_or_are_dropped(entries: Make, stack: Read, told: Told) -> None:
    args = [
        "--max-model-len=4096", "--max_num_seqs", "3", "--gpu-memory-utilization", "0.9", "--dtype", "auto",
        "--enforce-eager", "--no-enable-prefix-caching", "--trust-remote-code", "--swap-space", "4",
        "--tokenizer", "/home/someone/tok", "--api-key", "sk-0123456789abcdefghij",
    ]  # fmt: skip
    found = entries(vllm(args=args))
    model = stack(found).models["m0"]
    assert (model.context, model.concurrency) == (4096, 3)
    assert model.vllm == {"dtype": "auto", "enforce-eager": True, "enable-prefix-caching": False}
    assert "sk-0123456789" not in f"{found.text}{found.diagnostics}"
    messages = [message for _, message in told(found)]
    assert "m0: derived, so dropped: --gpu-memory-utilization, port" in messages
    assert [message for message in messages if "--" in message and "is not carried over" in message] == [
        f"m0: --{flag} is not carried over" for flag in ("trust-remote-code", "tokenizer", "api-key")
    ]
    assert "m0: `vllm.swap-space` is not carried over: vLLM flag `swap-space` was removed in 0.18" in messages


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**vllm(), "deprecated": True}, "m0 is left out: it is deprecated"),
        ({**vllm(), "metadata": {"testing": True}}, "m0 is left out: it is a test entry"),
        ({**vllm(), "name": "r-probe"}, "r-probe is left out: it is a test entry"),
        ({"backend": "triton"}, "m0 is left out: its backend is triton; known are vllm, ollama, gguf"),
        ({"backend": "vllm"}, "m0 is left out: nothing says where its weights are"),
        ({"backend": "ollama"}, "m0 is left out: it names no Ollama tag"),
        ({**vllm(), "name": "((("}, "((( is left out: nothing of its name can be an id"),
        ({"backend": "gguf", "backend_config": {"model_path": "/w/folder"}}, "m0 is left out: which file is it?"),
    ],
)
def test_what_cannot_become_a_model_is_left_out_with_the_reason(
    entries: Make, told: Told, entry: dict[str, Any], message: str
) -> None:
    found = entries(entry)
    assert ("IW802", message) in told(found)
    assert found.text is None
    assert told(found)[-1][0] == "IW800"


def test_an_entry_is_told_at_its_line() -> None:
    source = SourceFile("c.json", '[\n {"x": 1,\n  "name": "m", "backend": "triton"}\n]')
    (finding, _) = registry.convert(source, None, lambda _: ()).diagnostics
    assert finding.primary is not None
    assert (finding.primary.span.line, finding.primary.span.column) == (3, 11)


def test_missing_vision_is_repaired_only_where_a_name_or_probe_vouches(entries: Make, stack: Read, told: Told) -> None:
    roles = {"roles": ["caption"], "role_priority": {"caption": 80}, "capabilities": {"text": True}}
    found = entries(
        {**vllm(**roles), "name": "pixtral-12b"},
        {**vllm(**roles), "probes": {"vision": {"vision_ok": True}}},
        {**vllm(**roles), "name": "plain"},
    )
    models = stack(found).models
    assert models["pixtral-12b"].capabilities == models["m1"].capabilities == ("chat", "vision")
    assert models["plain"].capabilities == ("chat",)
    assert models["plain"].roles == {}
    assert ("IW805", "plain: role `caption` is not carried over") in told(found)


def test_a_role_without_a_number_gets_fifty(entries: Make, stack: Read, told: Told) -> None:
    found = entries({**GEMMA, "roles": ["chat"], "role_priority": {"chat": None}})
    assert stack(found).models["m0"].roles == {"chat": 50}
    assert ("IW803", "m0: role `chat` has no priority: 50") in told(found)


def test_a_role_of_its_own_is_declared(entries: Make, stack: Read, told: Told) -> None:
    found = entries({**GEMMA, "roles": ["poems"], "role_priority": {"poems": 7}})
    assert stack(found).roles["poems"].requires == ("chat",)
    assert ("IW806", "role `poems` is not built in") in told(found)


def test_templates_that_disagree_are_a_question(entries: Make, told: Told) -> None:
    template = {"chat_template": {"source": "external", "path": "/w/a.json"}}
    one = told(entries({**vllm(args=["--chat-template", "/w/a.jinja"]), **template}))
    assert ("IW806", "m0 has two chat templates") in one
    assert ("IW805", "m0: chat template a.json is not carried over") in told(entries({**vllm(), **template}))


def test_sources_are_paths_below_one_root_or_a_repository(entries: Make, stack: Read) -> None:
    elsewhere = {"backend": "vllm", "backend_config": {"model_path": "/mnt/d/x/y"}}
    gguf = {
        "backend": "gguf",
        "backend_config": {"model_path": "/home/someone/weights/o/n"},
        "download_files": ["m-Q4_K_M.gguf", "mmproj-m.gguf", "README.md"],
    }
    found = stack(entries(vllm(), elsewhere, gguf, {"backend": "vllm", "source": {"huggingface_id": "c/d"}}))
    assert [model.source for model in found.models.values()] == [
        PathSource(path="a/b"),
        PathSource(path="x/y"),
        PathSource(path="o/n/m-Q4_K_M.gguf", mmproj="o/n/mmproj-m.gguf"),
        HfSource(hf="c/d"),
    ]


def test_ollamas_context_and_tag_are_kept(entries: Make, stack: Read) -> None:
    config = {"model_path": "ollama:/team/m:q3_k_m", "extra_args": ["--num-ctx", "4096", "--num-gpu", "35"]}
    model = stack(entries({**GEMMA, "backend_config": config})).models["m0"]
    assert model.context == 4096
    assert model.source == OllamaSource(ollama="team/m:q3_k_m")


def test_a_dollar_stays_a_dollar(entries: Make, stack: Read) -> None:
    found = stack(entries({**GEMMA, "model_aliases": ["${HOME} $$ $x"]}))
    assert found.models["m0"].aliases == ("${HOME} $$ $x",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "3",
        '"x"',
        "[" * 5000,
        "{" * 3,
        '{"a": 1, "a": 2}',
        "9" * 5000,
        "[null, 1, {}]",
        '[{"name": "\\ud800"}]',
    ],
)
def test_what_is_no_registry_is_refused(text: str) -> None:
    found = registry.convert(SourceFile("c.json", text), None, lambda _: ())
    assert found.text is None
    assert "IW800" in [item.code for item in found.diagnostics]


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
SAMPLE = json.loads((HERE / "registry" / "curated.json").read_text("utf-8"))


@st.composite
def damaged(draw: st.DrawFn) -> list[Any]:
    """Entries of the studio with some of their values, at any depth, replaced by anything."""
    found = json.loads(json.dumps(draw(st.lists(st.sampled_from(SAMPLE), min_size=1, max_size=3))))
    for entry in found:
        for _ in range(draw(st.integers(0, 4))):
            node, key = entry, draw(st.sampled_from(sorted(entry)))
            if isinstance(node[key], dict) and node[key] and draw(st.booleans()):
                node, key = node[key], draw(st.sampled_from(sorted(node[key])))
            node[key] = draw(VALUES)
    return list(found)


@settings(max_examples=150, deadline=None)
@given(damaged())
def test_whatever_stands_in_it_the_stack_loads_or_there_is_none(data: list[Any]) -> None:
    def front_end(text: str) -> Any:
        return load("stack.yaml", MemoryFiles({"stack.yaml": text}), "x").diagnostics

    found = registry.convert(SourceFile("c.json", json.dumps(data)), None, front_end)
    if found.text is None:
        assert any(item.is_error for item in found.diagnostics)
    else:
        assert not [item for item in front_end(found.text) if item.is_error]


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text_is_told_something_about(text: str) -> None:
    assert registry.convert(SourceFile("c.json", text), None, lambda _: ()).diagnostics
