"""Official clients, unchanged, against the real proxy over real llama.cpp: Python, Node, curl.

More clients (Anthropic's, LangChain's, LlamaIndex's) run the same way under scripts/conformance.py.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .conftest import StackFolder, eventually

pytestmark = pytest.mark.e2e

TESTS = Path(__file__).parents[1]
CLIENTS = TESTS / "clients"
ASK = '{"model":"small","max_tokens":4,"messages":[{"role":"user","content":"hi"}]%s}'


def _ports() -> tuple[int, ...]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(4)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return tuple(item.getsockname()[1] for item in sockets)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[StackFolder]:
    """One stack for all clients, which answers (`small`) and sees (`eyes`)."""
    stack = StackFolder(tmp_path_factory.mktemp("c"), _ports())
    stack.write(
        extra=f"""  eyes:
    backend: llamacpp
    source: {{path: smol.gguf, mmproj: eyes.gguf}}
    capabilities: [chat, vision]
    context: 2048
    placement: cpu
    roles: {{caption: 50}}
    pin: {{port: {{value: {stack.model_ports[2]}, because: "tests choose free ports"}}}}
"""
    )
    models = stack.folder / "models"
    models.mkdir()
    (models / "smol.gguf").symlink_to(smollm2)
    subprocess.run([sys.executable, str(TESTS / "tools" / "tiny_projector.py"), str(models / "eyes.gguf")], check=True)
    try:
        up = stack.run("up", "-d")
        assert up.returncode == 0, up.stderr
        yield stack
    finally:
        stack.run("down")
        eventually(lambda: not stack.processes(), "every process of the stack is gone")


def problems(command: list[str], cwd: Path | None = None) -> list[str]:
    """Run a client; the checks that failed, and its own failure to run."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = [f"{row['client']}, {row['check']}: {row['problem']}" for row in rows if row["problem"]]
    return found or ([] if rows and not done.returncode else [done.stderr[-2000:] or "nothing was checked"])


def node_modules(npm: str) -> None:
    """The locked packages of package-lock.json, once for each checkout."""
    if not (CLIENTS / "node_modules" / "openai").is_dir():
        done = subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund"], cwd=CLIENTS, capture_output=True, text=True, check=False
        )
        if done.returncode:
            told = f"npm ci failed: {done.stderr[-500:]}"
            pytest.fail(told) if os.environ.get("IMAGEWORKS_REQUIRE") == "all" else pytest.skip(told)


def test_the_official_python_sdk_works_unchanged(served: StackFolder) -> None:
    assert problems([sys.executable, str(CLIENTS / "clients.py"), "openai", served.url]) == []
    lines = served.records()
    assert [line for line in lines if line["outcome"] == "client_abort"], "the cancelled stream"
    assert all(line["tokens"]["out"] for line in lines if line["outcome"] in ("ok", "truncated")), "usage is true"


def test_the_official_node_sdk_works_unchanged(served: StackFolder, tool: Callable[[str], str]) -> None:
    node = tool("node")
    node_modules(tool("npm"))
    picture = subprocess.run(
        [sys.executable, "-c", "from clients import picture; print(picture())"],
        cwd=CLIENTS, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    assert problems([node, "openai_node.mjs", served.url, picture], CLIENTS) == []


def test_curl_gets_answers_streams_and_errors(served: StackFolder, tool: Callable[[str], str]) -> None:
    curl = [tool("curl"), "-sS", "-N", "--max-time", "60", "-w", "\n%{http_code} %{content_type}"]

    def ask(body: str, *more: str) -> tuple[str, str]:
        url = f"{served.url}/v1/chat/completions"
        done = subprocess.run([*curl, *more, url, "-d", body], capture_output=True, text=True, check=True)
        said, _, status = done.stdout.rpartition("\n")
        return status, said

    json_type = ("-H", "Content-Type: application/json")
    status, said = ask(ASK % "", *json_type)
    assert (status.split(";")[0], bool(json.loads(said)["choices"])) == ("200 application/json", True)
    status, said = ask(ASK % ',"stream":true', *json_type)
    assert status.startswith("200 text/event-stream")
    assert said.rstrip().endswith("data: [DONE]")
    status, said = ask(ASK.replace("small", "none") % "", *json_type)
    assert (status, json.loads(said)["error"]["code"]) == ("404 application/json", "model_not_found")
    large = (ASK % "").replace('"hi"', json.dumps("hi " * 4000))
    status, said = ask(large, *json_type, "-H", "Expect: 100-continue", "--http1.1")
    assert status.startswith("400"), said
    assert "error" in json.loads(said)


def test_what_the_suite_needs_is_locked_without_hosts() -> None:
    lock = (CLIENTS / "package-lock.json").read_text()
    assert "://" not in lock
    assert json.loads(lock)["packages"]["node_modules/openai"]["integrity"].startswith("sha512-")
    assert "omit-lockfile-registry-resolved=true" in (CLIENTS / ".npmrc").read_text()
