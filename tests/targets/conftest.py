"""Plans made by hand: one model of each backend, so that every target has something of every kind to write."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imageworks.diagnostics.model import Span
from imageworks.plan.ir import (
    GIB,
    Bundle,
    Candidate,
    Device,
    Flag,
    Launch,
    Memory,
    Need,
    Options,
    Placement,
    Plan,
    PlannedModel,
    PlannedProxy,
    PlannedRole,
    Policy,
    Prompt,
    PromptBinding,
    Rejected,
    RootDir,
    Term,
    Unplaced,
)

ENGINE_ENV = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}


def at(line: int) -> Span:
    return Span("stack.yaml", line * 40, line * 40 + 5, line, 3, line, 8)


def vllm_launch() -> Launch:
    return Launch(
        program="model-qwen3-vl-8b",
        flags=(
            Flag("", "vllm", "the engine"),
            Flag("", "serve", "its verb"),
            Flag("", "{models}/Qwen/Qwen3 VL", "source.path", path=True),
            Flag("--port", "24001", "first free port"),
            Flag("--max-model-len", "6144", "longest context that fits", span=at(12)),
            Flag("--limit-mm-per-prompt", '{"image":2}', "the roles of this model say 2"),
            Flag("--chat-template", "it's {stack} 100% $HOME", "declared"),
            Flag("--enable-auto-tool-choice", None, "declared"),
        ),
        env=ENGINE_ENV,
        slots=(0,),
        needs=(Need("{models}/Qwen/Qwen3 VL", "hf download Qwen/Qwen3-VL --local-dir models/Qwen/Qwen3-VL"),),
    )


def llamacpp_launch() -> Launch:
    return Launch(
        program="model-smollm2-135m",
        flags=(
            Flag("", "{python}", "ours", path=True),
            Flag("", "-m", "ours"),
            Flag("", "imageworks.services.llama_server", "the bundled engine"),
            Flag("--model", "{store}/sha256/b179/SmolLM2.gguf", "the packaged file", form="pair", path=True),
            Flag("--ctx-size", "2048", "declared", span=at(20), form="pair"),
        ),
        env={},
        slots=(),
        needs=(Need("{store}/sha256/b179/SmolLM2.gguf", "imageworks up"),),
    )


def model(name: str, slug: str, **changes: object) -> PlannedModel:
    plain = PlannedModel(
        id=name,
        slug=slug,
        aliases=(),
        backend="llamacpp",
        quantization="q4_1",
        capabilities=("chat",),
        context=2048,
        context_why="declared",
        concurrency=1,
        concurrency_why="default",
        images_max=0,
        placement=Placement("cpu", (), "placement: cpu"),
        memory=Memory((Term("weights", 98_362_432, "lock", "size of the file"),)),
        launch=None,
        host="127.0.0.1",
        port=None,
        url=None,
        served_name=name,
        sampling={},
        grace_s=120.0,
        start_timeout_s=180.0,
        pinned=False,
        package=None,
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def models() -> tuple[PlannedModel, ...]:
    return (
        model("gpt-remote", "gpt-remote", backend="openai", url="https://llm.example.org", placement=Placement("remote", (), "url")),
        model("pixtral", "pixtral", backend="ollama", url="http://127.0.0.1:11434", served_name="pixtral:latest", placement=Placement("gpu", (0,), "its daemon")),
        model(
            "qwen3_vl.8b",
            "qwen3-vl-8b",
            aliases=("qwen",),
            backend="vllm",
            placement=Placement("gpu", (0,), "fits GPU 0: 12.8 of 13.7 GiB"),
            memory=Memory((Term("weights", 10 * GIB, "declared", "vram.weights", at(15)), Term("KV cache", 2 * GIB, "derived", "6144 tokens"))),
            launch=vllm_launch(),
            port=24001,
            images_max=2,
            sampling={"temperature": 0.3},
            start_timeout_s=119.5,
            span=at(10),
        ),
        model("smollm2-135m", "smollm2-135m", launch=llamacpp_launch(), port=24002, span=at(18)),
    )  # fmt: skip


def roles() -> tuple[PlannedRole, ...]:
    return (
        PlannedRole(
            name="caption",
            requires=("vision",),
            candidates=(Candidate("qwen3_vl.8b", 85, "caption", 12288, "fp8", "priority 85"),),
            rejected=(Rejected("smollm2-135m", "lacks vision"),),
            images_max=1,
            max_edge_px=1024,
            max_tokens=160,
            deadline_s=600.0,
            fallback=("vision_general",),
        ),
    )


def proxy() -> PlannedProxy:
    flags = tuple(
        Flag("", word, "ours", path=word.startswith("{"))
        for word in ("{python}", "-m", "imageworks", "serve", "--routes", "{stack}/generated/small/routes.json")
    )
    launch = Launch("imageworks-proxy", flags, {}, (), ())
    return PlannedProxy("127.0.0.1", 8100, 64 << 20, 256, 600.0, 20.0, launch)


def plan(profile: str = "small", **changes: object) -> Plan:
    plain = Plan(
        stack="home-studio",
        profile=profile,
        devices=(Device(0, 15 * GIB, GIB),),
        policy=Policy("load_unload", 1, 4 * GIB, ("qwen3_vl.8b",)),
        models=models(),
        unplaced=(Unplaced("gpt-oss-20b", "IW410", "needs 15.9 GiB of 13.7"),),
        roles=roles(),
        proxy=proxy(),
        bundle=Bundle(
            (Prompt("tagger", "short", "1", "Say what you see.", "One line, é.", ("base",), "ab" * 32),),
            (PromptBinding("tagger.caption", "caption", "tagger", "short"),),
            "cd" * 32,
        ),
        roots=(RootDir("models", "IMAGEWORKS_MODELS", "models"), RootDir("state", "IMAGEWORKS_STATE", ".imageworks")),
        options=Options(
            supervisord=True, systemd=True, systemd_scope="user", systemd_prefix="%h/imageworks", vllm_scripts=True
        ),
        stop_wait_s=30.0,
        inputs={"stack.yaml": "ef" * 32},
        out="generated",
        hash="01" * 32,
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture
def make_plan() -> Callable[..., Plan]:
    return plan


@pytest.fixture
def stack_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a control socket, as pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="iw-") as folder:
        yield Path(folder).resolve()
