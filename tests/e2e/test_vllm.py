"""The real vLLM, its CPU build, behind everything: compiled command, supervisord, proxy, on a card of the fake NVML.

Runs where scripts/vllm.sh has made its environment (`IMAGEWORKS_VLLM=1 ./scripts/test tests/e2e/test_vllm.py` makes it):
2.5 GB, too much for every run. The model is the bundled one, as safetensors (tests/tools/record_vllm.py).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from imageworks.runtime import processes

from .conftest import StackFolder, eventually

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / os.environ.get("IMAGEWORKS_VLLM_ENV", ".venv-vllm")
PYTHON, VLLM = ENVIRONMENT / "bin/python", ENVIRONMENT / "bin/vllm"
START_S = 240.0

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not VLLM.is_file(), reason="no vLLM here: IMAGEWORKS_VLLM=1 ./scripts/test installs one"),
]


def program(pid: int) -> str:
    """As the launcher says it; nothing when it has ended meanwhile."""
    return processes.environment(pid).get("IMAGEWORKS_PROGRAM", "")


class VllmStack(StackFolder):
    """A stack of two vLLM models, one card that holds one of them at a time."""

    def __init__(self, folder: Path, ports: tuple[int, ...], nvml: Path, models: Path) -> None:
        super().__init__(folder, ports)
        self.nvml, self.models = nvml, models
        (folder / "card").write_text("gpu 15360 -1 8 9 GPU-11111111-2222-3333-4444-555555555555 Fake Card\n")
        model = "{backend: vllm, source: {path: smollm2}, context: 1024, capabilities: [chat, tools, reasoning], "
        tools = "vllm: {enforce-eager: true, enable-auto-tool-choice: true, tool-call-parser: hermes}, "
        (folder / "stack.yaml").write_text(
            f"""version: 1
name: e2e-vllm
defaults: {{start_timeout: {START_S:.0f}s, concurrency: 4}}
backends: {{vllm: {{version: "0.32.0", command: {VLLM}}}}}
profiles:
  card: {{match: {{gpus: 1, vram: ">=14.9GiB <22.1GiB"}}, headroom: 1GiB, max_concurrent_models: 1, strategy: load_unload}}
models:
  one: {model}{tools}roles: {{chat: 20}}, pin: {{port: {{value: {self.model_ports[0]}, because: "free"}}}}}}
  two: {model}{tools}roles: {{chat: 15}}, pin: {{port: {{value: {self.model_ports[1]}, because: "free"}}}}}}
proxy: {{bind: "127.0.0.1:{self.port}"}}
""",
            encoding="utf-8",
        )

    def environ(self) -> dict[str, str]:
        own = {
            "IMAGEWORKS_DEPLOYMENT_PROFILE": "card",
            "IMAGEWORKS_MODELS": str(self.models),
            "LD_LIBRARY_PATH": str(self.nvml),
            "FAKE_NVML": str(self.folder / "card"),
            "OMP_NUM_THREADS": "1",
        }
        return super().environ() | own

    def engines(self) -> dict[int, int]:
        """Every process of an engine of this stack and its parent, by pid."""
        found = processes.marked({"IMAGEWORKS_STACK": str(self.folder)})
        looked = [processes.look(holder.pid) for holder in found if "model-" in program(holder.pid)]
        return {process.pid: process.parent for process in looked if process}

    def metric(self, name: str) -> float:
        """A gauge of the first model's engine, asked without the proxy."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.model_ports[0]}/metrics", timeout=30) as response:
            text = response.read().decode()
        return sum(float(value) for value in re.findall(rf"^{name}{{[^}}]*}} (\S+)$", text, re.MULTILINE))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Path:
    """A folder with the bundled model as vLLM reads it."""
    folder = tmp_path_factory.mktemp("models")
    code = "import sys, pathlib, record_vllm; record_vllm.convert(*map(pathlib.Path, sys.argv[1:]))"
    command = [str(word) for word in (PYTHON, "-c", code, smollm2, folder / "smollm2")]
    subprocess.run(command, cwd=ROOT / "tests/tools", check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def vllm(
    tmp_path_factory: pytest.TempPathFactory,
    module_ports: Callable[[int], tuple[int, ...]],
    nvml_library: Path,
    models: Path,
) -> Iterator[VllmStack]:
    """One stack for all tests of this file: a start takes half a minute."""
    made = VllmStack(tmp_path_factory.mktemp("stack"), module_ports(3), nvml_library, models)
    try:
        done = made.run("up", "-d")
        assert done.returncode == 0, done.stdout + done.stderr
        yield made
    finally:
        made.run("down")
    assert not made.engines()
    eventually(lambda: not made.processes(), "every process of the stack is gone")


@pytest.fixture
def client(vllm: VllmStack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{vllm.url}/v1", api_key="none", max_retries=0, timeout=START_S) as found:
        yield found


SAY: Any = [{"role": "user", "content": "Caption a cat."}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "caption",
        "parameters": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    },
}


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {
        "model": "one",
        "messages": SAY,
        "max_tokens": 24,
        "temperature": 0,
        "extra_body": {"ignore_eos": True},
    }
    whole = client.chat.completions.create(**ask)
    assert whole.model == "one"
    assert whole.choices[0].message.content
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 24
    chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


def test_a_tool_call_comes_through(client: openai.OpenAI) -> None:
    said = '<tool_call>\n{"name": "caption", "arguments": {"text": "été 😀"}}\n</tool_call>'
    answer = client.chat.completions.create(
        model="one", messages=SAY, max_tokens=60, tools=[TOOL], extra_body={"structured_outputs": {"choice": [said]}}
    ).choices[0]  # fmt: skip
    assert answer.finish_reason == "tool_calls"
    assert answer.message.tool_calls
    (call,) = answer.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("caption", {"text": "été 😀"})


def test_a_refusal_of_the_engine_keeps_its_words(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature must be non-negative"):
        client.chat.completions.create(model="one", messages=SAY, temperature=-1)


def test_a_client_that_leaves_ends_the_work_in_the_engine(vllm: VllmStack, client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"max_tokens": 900, "extra_body": {"ignore_eos": True}}
    with client.chat.completions.create(model="one", messages=SAY, stream=True, **ask) as stream:
        next(iter(stream))
        eventually(lambda: vllm.metric("vllm:num_requests_running") == 1, "the engine works")
        finished = vllm.metric("vllm:request_success_total")
    eventually(lambda: vllm.metric("vllm:num_requests_running") == 0, "the engine stops", 5)
    assert vllm.metric("vllm:generation_tokens_total") > 0
    assert vllm.metric("vllm:request_success_total") - finished <= 1  # the aborted one counts as finished, none other


@pytest.mark.parametrize("which", ["server", "engine core"])
def test_a_killed_process_leaves_no_other_and_the_model_comes_back(
    vllm: VllmStack, client: openai.OpenAI, which: str
) -> None:
    """vllm#55510: an engine core that lives on without its server keeps the card."""
    client.chat.completions.create(model="one", messages=SAY, max_tokens=2)
    before = vllm.engines()
    (server,) = (pid for pid, parent in before.items() if parent not in before)
    core = max(pid for pid, parent in before.items() if parent == server)  # the other is multiprocessing's own
    killed = server if which == "server" else core
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: killed not in vllm.engines(), "it is dead")
    eventually(lambda: not before.keys() & vllm.engines().keys(), "nothing of the old engine lives", 60)
    assert client.chat.completions.create(model="one", messages=SAY, max_tokens=2).choices
    assert not before.keys() & vllm.engines().keys()


def test_another_model_gets_the_card_when_the_first_is_gone(vllm: VllmStack, client: openai.OpenAI) -> None:
    client.chat.completions.create(model="one", messages=SAY, max_tokens=2)
    before = vllm.engines()
    assert client.chat.completions.create(model="two", messages=SAY, max_tokens=2).model == "two"
    assert not before.keys() & vllm.engines().keys()
    assert (vllm.state("one"), vllm.state("two")) == ("stopped", "ready")
