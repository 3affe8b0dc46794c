"""Record the real vLLM's answers byte by byte: `PYTHON record_vllm.py MODEL.gguf FOLDER` writes FOLDER/vllm-*.http.

PYTHON is the one of scripts/vllm.sh's environment, with `gguf` and `accelerate` installed beside. vLLM's CPU build reads
no GGUF, so the model's weights are written as safetensors first. The model has never learned to call tools or to think:
two unused tokens of its vocabulary become `<think>` and `</think>`, the chat template opens a thought when it is asked to,
`thinking_token_budget` closes it, and `structured_outputs` makes the model write a call. All that is the engine's input:
what it makes of the text (parsers, deltas, usage) is its own.

Beside each answer lies a JSON file with the engine, its version, the command, the request, and what a client reads.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + (message['content'] or '') + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking %}{{ '<think>\n' }}{% endif %}{% endif %}"
)
TOKENS = {"<jupyter_start>": "<think>", "<jupyter_text>": "</think>"}
FLAGS = (
    "--served-model-name", "small", "--max-model-len", "1024", "--enforce-eager", "--max-num-seqs", "4",
    "--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--reasoning-parser", "qwen3",
    "--reasoning-config", '{"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}',
)  # fmt: skip

SAY: dict[str, Any] = {
    "model": "small",
    "max_tokens": 24,
    "temperature": 0,
    "messages": [{"role": "user", "content": "Caption a cat: été 😀."}],
    "chat_template_kwargs": {"enable_thinking": False},
}
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
THINK: dict[str, Any] = {
    "chat_template_kwargs": {"enable_thinking": True},
    "thinking_token_budget": 12,
    "max_tokens": 48,
}


def function(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


CAPTION = '<tool_call>\n{"name": "caption", "arguments": {"text": "été 😀 \\"a cat\\"", "score": 7}}\n</tool_call>'
RATE = '\n<tool_call>\n{"name": "rate", "arguments": {}}\n</tool_call>'
TOOLS: dict[str, Any] = {
    "tools": [function("caption", {"text": {"type": "string"}, "score": {"type": "integer"}}), function("rate", {})],
    "max_tokens": 200,
}
CALLS = [
    {"name": "caption", "arguments": '{"text": "été 😀 \\"a cat\\"", "score": 7}'},
    {"name": "rate", "arguments": "{}"},
]
EMOJI = "👩‍👩‍👧 naïve Ω≈ç 漢字 🏳️‍🌈"
THOUGHT = "user\nWhat is the most popular cat breed?"
SAYS_JSON = '{"name":"x","arguments":{}}'


def exactly(text: str) -> dict[str, Any]:
    """Make the model write this text."""
    return {"structured_outputs": {"choice": [text]}}


# Name -> endpoint, request, what a client reads of it where the text is known.
REQUESTS: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None]] = {
    "whole": ("chat/completions", SAY, None),
    "stream": ("chat/completions", SAY | STREAM, None),
    "n-stream": ("chat/completions", SAY | STREAM | {"n": 2, "temperature": 1, "seed": 1}, None),
    "logprobs-stream": ("chat/completions", SAY | STREAM | {"logprobs": True, "top_logprobs": 2}, None),
    "usage-stream": (
        "chat/completions",
        SAY | {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        None,
    ),
    "tools": (
        "chat/completions",
        SAY | TOOLS | exactly(CAPTION + RATE),
        {"tool_calls": CALLS, "finish_reason": "tool_calls"},
    ),
    "tools-stream": (
        "chat/completions",
        SAY | TOOLS | STREAM | exactly(CAPTION + RATE),
        {"tool_calls": CALLS, "finish_reason": "tool_calls"},
    ),
    "text-before-tools-stream": (
        "chat/completions",
        SAY | TOOLS | STREAM | exactly(f"Ein Bild…\n{CAPTION}"),
        {"content": "Ein Bild…\n", "tool_calls": CALLS[:1], "finish_reason": "tool_calls"},
    ),
    "required-tool-stream": ("chat/completions", SAY | TOOLS | STREAM | {"tools": TOOLS["tools"][:1], "tool_choice": "required"}, None),
    "reasoning": (
        "chat/completions",
        SAY | THINK | exactly(SAYS_JSON),
        {"content": SAYS_JSON, "reasoning": THOUGHT, "tool_calls": [], "finish_reason": "stop"},
    ),
    "reasoning-stream": (
        "chat/completions",
        SAY | THINK | STREAM | exactly(SAYS_JSON),
        {"content": SAYS_JSON, "reasoning": THOUGHT, "tool_calls": [], "finish_reason": "stop"},
    ),
    "reasoning-tools-stream": (
        "chat/completions",
        SAY | THINK | TOOLS | STREAM | exactly(CAPTION),
        {"reasoning": THOUGHT, "tool_calls": CALLS[:1], "finish_reason": "tool_calls"},
    ),
    "json-schema": (
        "chat/completions",
        SAY | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": TOOLS["tools"][0]["function"]["parameters"]}}},
        None,
    ),
    "emoji-stream": ("chat/completions", SAY | STREAM | {"max_tokens": 80} | exactly(EMOJI), {"content": EMOJI, "tool_calls": [], "finish_reason": "stop"}),
    "completions-stream": ("completions", {"model": "small", "prompt": "été 😀", "max_tokens": 12, "temperature": 0} | STREAM, None),
    "messages-stream": ("messages", {"model": "small", "max_tokens": 16, "messages": SAY["messages"], "stream": True}, None),
    "responses-stream": ("responses", {"model": "small", "input": "Caption a cat.", "max_output_tokens": 24, "temperature": 0, "stream": True}, None),
    "error": ("chat/completions", SAY | {"messages": [{"role": "user", "content": "hi " * 4000}]}, None),
    "error-unknown": ("chat/completions", SAY | {"model": "unknown"}, None),
    "error-stream": ("chat/completions", SAY | STREAM | {"temperature": -1}, None),
}  # fmt: skip


def convert(gguf: Path, folder: Path) -> None:
    """The model of a GGUF file as vLLM reads it, with the tokens and the template above."""
    transformers = importlib.import_module("transformers")  # not in our own environment
    plain = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype="bfloat16", quantization_config=plain
    )
    model.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    text = path.read_text("utf-8")
    for old, new in TOKENS.items():
        text = text.replace(json.dumps(old), json.dumps(new))
    found = json.loads(text)
    for token in found["added_tokens"]:
        token["special"] = token["special"] and token["content"] not in TOKENS.values()
    path.write_text(json.dumps(found, ensure_ascii=False), "utf-8")


def ask(port: int, path: str, body: bytes) -> bytes:
    """The whole response as it comes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), 120) as client:
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


def is_up(port: int) -> bool:
    try:
        return b" 200 " in ask(port, "/tokenize", b'{"model": "small", "prompt": "a"}')[:20]
    except OSError:
        return False


def record(port: int, folder: Path) -> None:
    """Every request of REQUESTS, asked once."""
    version = importlib.metadata.version("vllm").removesuffix("+cpu")
    for name, (endpoint, body, expects) in REQUESTS.items():
        sent = json.dumps(body, ensure_ascii=False)
        (folder / f"vllm-{name}.http").write_bytes(ask(port, f"/v1/{endpoint}", sent.encode()))
        meta = {
            "engine": "vLLM",
            "version": version,
            "recorded": True,
            "command": f"python tests/tools/record_vllm.py SmolLM2-135M-Instruct.Q4_1.gguf tests/data/recordings; vllm serve {' '.join(FLAGS)}",
            "endpoint": endpoint,
            "request": body if name != "error" else "a message longer than the context",
        } | ({"expects": expects} if expects else {})
        (folder / f"vllm-{name}.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n", "utf-8")


def main(gguf: Path, folder: Path) -> None:
    """Convert, serve, record."""
    with tempfile.TemporaryDirectory() as model:
        convert(gguf, Path(model))
        port = free_port()
        environ = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        module = "vllm.entrypoints.openai.api_server"
        command = [sys.executable, "-m", module, "--model", model, "--port", str(port), "--host", "127.0.0.1", *FLAGS]
        with subprocess.Popen(command, env=environ) as engine:
            try:
                end = time.monotonic() + 300
                while not is_up(port):
                    if engine.poll() is not None or time.monotonic() > end:
                        sys.exit("vLLM did not start")
                    time.sleep(0.5)
                record(port, folder)
            finally:
                engine.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
