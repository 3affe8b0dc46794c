"""Record llama.cpp's answers byte by byte: `python record_llamacpp.py MODEL.gguf FOLDER` writes FOLDER/llamacpp-*.http.

Beside each answer lies a JSON file with the engine, its version, the command and the request, so that it can be recorded
again. The model has never learned to call tools: a chat template says how, and three turns that did before it get it to
do so once more.
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

SAY: dict[str, Any] = {
    "model": "small",
    "max_tokens": 40,
    "temperature": 0,
    "messages": [{"role": "user", "content": "Caption a cat: été 😀."}],
}
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
# After the form of Hermes and Qwen.
TEMPLATE = """{%- if tools %}{{- '<|im_start|>system\n<tools>' }}{%- for tool in tools %}{{- '\n' + tool | tojson }}
{%- endfor %}{{- '\n</tools>\nTo call: <tool_call>\n{"name": <name>, "arguments": <object>}\n</tool_call><|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}{{- '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""


def function(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


CALLS = [
    {"name": "caption", "arguments": '{"text": "été 😀 \\"a cat\\"", "score": 7}'},
    {"name": "rate", "arguments": "{}"},
]
TURN: list[dict[str, Any]] = [
    *SAY["messages"],
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": f"call{i}", "type": "function", "function": call} for i, call in enumerate(CALLS)],
    },
    *({"role": "tool", "tool_call_id": f"call{i}", "content": "ok"} for i in range(len(CALLS))),
]
TOOLS = {
    "messages": TURN * 3 + TURN[:1],
    "tools": [function("caption", {"text": {"type": "string"}, "score": {"type": "integer"}}), function("rate", {})],
    "max_tokens": 120,
}
EXPECTS = {"tools": {"tool_calls": CALLS, "finish_reason": "tool_calls"}}
EXPECTS["tools-stream"] = EXPECTS["tools"]
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "whole": ("chat/completions", SAY),
    "stream": ("chat/completions", SAY | STREAM),
    "logprobs-stream": ("chat/completions", SAY | STREAM | {"logprobs": True, "top_logprobs": 2, "max_tokens": 12}),
    "messages-stream": ("messages", SAY | {"stream": True}),
    "responses-stream": ("responses", {"model": "small", "input": "Caption a cat.", "max_output_tokens": 16, "temperature": 0, "stream": True}),
    "tools": ("chat/completions", SAY | TOOLS),
    "tools-stream": ("chat/completions", SAY | TOOLS | STREAM),
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
    values.chat_template = TEMPLATE
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
        } | ({"expects": EXPECTS[name]} if name in EXPECTS else {})
        (folder / f"llamacpp-{name}.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
