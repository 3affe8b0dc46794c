"""Record llama.cpp's answers byte by byte: `python record_llamacpp.py MODEL.gguf FOLDER` writes FOLDER/llamacpp-*.http.

Beside each answer lies a JSON file with the engine, its version, the command and the request, so that it can be recorded
again. The model calls no tools; answers that do are written after the engines' sources, and say so.
"""

from __future__ import annotations

import importlib.metadata
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

from imageworks.services.llama_server import parameters, parser

SAY = {
    "model": "small",
    "max_tokens": 40,
    "temperature": 0,
    "messages": [{"role": "user", "content": "Caption a cat: été 😀."}],
}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "whole": ("chat/completions", SAY),
    "stream": ("chat/completions", SAY | STREAM),
    "logprobs-stream": ("chat/completions", SAY | STREAM | {"logprobs": True, "top_logprobs": 2, "max_tokens": 12}),
    "messages-stream": ("messages", SAY | {"stream": True}),
    "responses-stream": ("responses", {"model": "small", "input": "Caption a cat.", "max_output_tokens": 16, "temperature": 0, "stream": True}),
    "error": ("chat/completions", SAY | {"messages": [{"role": "user", "content": "hi " * 4000}]}),
}  # fmt: skip


def ask(port: int, path: str, body: bytes) -> bytes:
    """The whole response as it comes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        client.sendall(head.encode() + body)
        answer = b""
        while data := client.recv(1 << 16):
            answer += data
    return answer


def free_port() -> int:
    """One that nobody uses now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def main(model: str, folder: Path) -> None:
    """Record all."""
    import xllamacpp  # noqa: PLC0415 - an extra

    port = free_port()
    flags = parser().parse_args(["-m", model, "-a", "small", "--port", str(port)])
    values = parameters(flags, xllamacpp)
    _server = xllamacpp.Server(values)
    end = time.monotonic() + 60
    while b" 200 " not in ask(port, "/health", b"")[:20].replace(b"404", b"200") and time.monotonic() < end:
        time.sleep(0.1)
    for name, (endpoint, body) in REQUESTS.items():
        sent = json.dumps(body, ensure_ascii=False)
        (folder / f"llamacpp-{name}.http").write_bytes(ask(port, f"/v1/{endpoint}", sent.encode()))
        meta = {
            "engine": "llama.cpp",
            "version": f"xllamacpp {importlib.metadata.version('xllamacpp')}",
            "recorded": True,
            "command": "python tests/tools/record_llamacpp.py SmolLM2-135M-Instruct.Q4_1.gguf tests/data/recordings",
            "endpoint": endpoint,
            "request": body if name != "error" else "a message longer than the context",
        }
        (folder / f"llamacpp-{name}.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
