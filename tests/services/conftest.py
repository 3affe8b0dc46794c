"""The real engine with the real small model."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@dataclass
class Servers:
    """Starts servers and ends what is left of them."""

    port: int
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, model: Path, *words: str) -> subprocess.Popen[str]:
        """The server, perhaps not yet listening; its log is `stderr`."""
        command = [sys.executable, "-m", "imageworks.services.llama_server", "-m", str(model), "--port", str(self.port)]
        process = subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def until(self, process: subprocess.Popen[str], words: str) -> None:
        """Read the log up to the line that holds `words`."""
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line)
            if words in line:
                return
        pytest.fail(f"the server ended before {words!r}:\n{''.join(seen)}")

    def ready(self, model: Path, *words: str) -> subprocess.Popen[str]:
        """A listening server."""
        process = self.start(model, *words)
        self.until(process, "listening on")
        return process


@pytest.fixture
def servers(port: int) -> Iterator[Servers]:
    started = Servers(port)
    yield started
    for process in started.processes:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
