"""An image through the real engine, with the small text model and a projector of random weights."""

from __future__ import annotations

import base64
import json
import struct
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import Any, Protocol

import pytest

from imageworks.store.facts import Weights, read_facts

TOOL = Path(__file__).parents[1] / "tools" / "tiny_projector.py"


class Servers(Protocol):
    url: str

    def ready(self, model: Path, *words: str) -> subprocess.Popen[str]: ...


def png(side: int) -> bytes:
    """A red square."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = (b"\0" + b"\xff\0\0" * side) * side
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def ask(url: str, *images: bytes) -> dict[str, Any]:
    urls = [f"data:image/png;base64,{base64.b64encode(image).decode()}" for image in images]
    content = [
        {"type": "text", "text": "What is this?"},
        *({"type": "image_url", "image_url": {"url": data}} for data in urls),
    ]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 4}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


@pytest.fixture(scope="module")
def projector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("projector") / "tiny.gguf"
    subprocess.run([sys.executable, str(TOOL), str(file)], check=True)
    return file


@pytest.mark.e2e
def test_an_image_is_looked_at_and_answered(servers: Servers, smollm2: Path, projector: Path) -> None:
    servers.ready(smollm2, "--mmproj", str(projector), "--ctx-size", "1024")
    blind, seeing = ask(servers.url), ask(servers.url, png(64))
    assert seeing["choices"][0]["message"]["role"] == "assistant"
    assert seeing["usage"]["completion_tokens"] > 0
    assert seeing["usage"]["prompt_tokens"] - blind["usage"]["prompt_tokens"] >= 16  # (64 / 16)^2 patches


@pytest.mark.e2e
def test_a_corrupt_image_is_the_clients_fault(servers: Servers, smollm2: Path, projector: Path) -> None:
    servers.ready(smollm2, "--mmproj", str(projector), "--ctx-size", "1024")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        ask(servers.url, b"not an image")


def test_the_projector_is_the_same_on_every_run(projector: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.gguf"
    subprocess.run([sys.executable, str(TOOL), str(again)], check=True)
    assert again.read_bytes() == projector.read_bytes()


@pytest.mark.e2e
def test_the_facts_of_model_and_projector_allow_images(smollm2: Path, projector: Path) -> None:
    facts = read_facts(Weights(smollm2, projector))
    assert facts.capabilities == ("chat", "vision")
    assert facts.weights_bytes == smollm2.stat().st_size + projector.stat().st_size
