"""Record Ollama's answers byte by byte: `python record_ollama.py URL FOLDER [BUILD]`.

What its OpenAI endpoint says is FOLDER/ollama-*.http, what its own API says FOLDER/ollama/*.http. Beside each answer lies a
JSON file with the engine, its version, the command and the request, so that it can be recorded again; BUILD says how that
Ollama was built. It has a model `small`, SmolLM2-135M-Instruct.Q4_1.gguf, and nothing loaded.

The model has never learned to call tools or to think. Models made from it have templates that say how, and three turns that
did before it get it to do so once more (`hermes`, `thinker`); one whose calls are bare JSON is forced to by a schema (`bare`).
"""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from imageworks.runtime.ollama import request

MADE = "imageworks/small-2048"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
COMMAND = f"ollama create small (FROM {GGUF}); ollama serve; python tests/tools/record_ollama.py http://127.0.0.1:11434 tests/data/recordings"
HERMES = """{{- if .Tools }}<|im_start|>system
<tools>{{ range .Tools }}
{{ . }}{{ end }}
</tools>
To call: <tool_call>
{"name": <name>, "arguments": <object>}
</tool_call><|im_end|>
{{ end }}
{{- range .Messages }}
{{- if eq .Role "tool" }}<|im_start|>user
Done: {{ .Content }}<|im_end|>
{{ else }}<|im_start|>{{ .Role }}
{{ .Content }}
{{- if .ToolCalls }}{{ range .ToolCalls }}
<tool_call>
{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
</tool_call>{{ end }}{{ end }}<|im_end|>
{{ end }}
{{- end }}<|im_start|>assistant
"""
BARE = HERMES.replace("<tool_call>\n", "").replace("\n</tool_call>", "")
THINKER = """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ if .Thinking }}<think>
{{ .Thinking }}
</think>
{{ end }}{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
MODELS = {"hermes": HERMES, "bare": BARE, "thinker": THINKER}

USER = {"role": "user", "content": "Caption a cat: été 😀."}
# One argument each: Ollama keeps those that it finds in a text in a map of Go, whose order changes.
GIVEN: list[tuple[str, dict[str, Any]]] = [("caption", {"text": 'été 😀 "a cat"'}), ("rate", {"score": 7})]
ARGUMENTS = GIVEN[0][1]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"const": "caption"},
        "arguments": {
            "type": "object",
            "properties": {name: {"const": value} for name, value in ARGUMENTS.items()},
            "required": list(ARGUMENTS),
            "additionalProperties": False,
        },
    },
    "required": ["name", "arguments"],
    "additionalProperties": False,
}
THOUGHTS, SAID = "été: a cat, so one word.", "Cat 😀"


def function(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": schema}}


TOOLS = [function("caption", {"text": {"type": "string"}}), function("rate", {"score": {"type": "integer"}})]


CALLED: list[dict[str, Any]] = [
    USER,
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": f"call{i}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
            }
            for i, (name, arguments) in enumerate(GIVEN)
        ],
    },
    *({"role": "tool", "content": "ok", "tool_call_id": f"call{i}"} for i in range(len(GIVEN))),
]
THOUGHT: list[dict[str, Any]] = [USER, {"role": "assistant", "content": SAID, "reasoning": THOUGHTS}]


def openai(model: str = "small", limit: int = 24, **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": limit, "temperature": 0, "messages": [USER], **more}


def native(model: str = "small", limit: int = 24, **more: Any) -> dict[str, Any]:
    options = {"temperature": 0, "num_predict": limit}
    return {"model": model, "messages": [USER], "stream": True, "options": options, **more}


class Ask(NamedTuple):
    """One request. `body` is bytes where it is no JSON."""

    path: str
    body: dict[str, Any] | bytes | None = None
    method: str = "POST"
    expects: dict[str, Any] | None = None


def expected(content: str, reason: str, *names: str, reasoning: str = "") -> dict[str, Any]:
    """What a client makes of an answer."""
    given = {name: json.dumps(value, ensure_ascii=False, separators=(",", ":")) for name, value in GIVEN}
    calls = [{"name": name, "arguments": given[name]} for name in names]
    return {"content": content, "reasoning": reasoning, "tool_calls": calls, "finish_reason": reason}


STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
SHAPE = {
    "type": "object",
    "properties": {"name": {"const": "été 😀"}, "lives": {"const": 9}},
    "required": ["name", "lives"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "cat", "schema": SHAPE}}
CALL_FORM = {"type": "json_schema", "json_schema": {"name": "call", "schema": SCHEMA}}
SHAPED = expected('{\n  "name": "été 😀",\n  "lives": 9\n}', "stop")
TWO = expected("\n", "tool_calls", "caption", "rate")
ONE = expected("", "tool_calls", "caption")
DEEP = expected(SAID, "stop", reasoning=THOUGHTS + "\n")
LONG = {"role": "user", "content": "hi " * 9000}

CHAT = "chat/completions"
OPENAI: dict[str, Ask] = {
    "whole": Ask(CHAT, openai()),
    "stream": Ask(CHAT, openai(**STREAM)),
    "logprobs-stream": Ask(CHAT, openai(limit=12, logprobs=True, top_logprobs=2, **STREAM)),
    "json-schema": Ask(CHAT, openai(limit=40, response_format=FORM), expects=SHAPED),
    "json-schema-stream": Ask(CHAT, openai(limit=40, response_format=FORM, **STREAM), expects=SHAPED),
    "tools": Ask(CHAT, openai("hermes", 120, tools=TOOLS, messages=CALLED * 3 + [USER]), expects=TWO),
    "tools-stream": Ask(CHAT, openai("hermes", 120, tools=TOOLS, messages=CALLED * 3 + [USER], **STREAM), expects=TWO),
    "bare-tool": Ask(CHAT, openai("bare", 120, tools=TOOLS, response_format=CALL_FORM), expects=ONE),
    "bare-tool-stream": Ask(CHAT, openai("bare", 120, tools=TOOLS, response_format=CALL_FORM, **STREAM), expects=ONE),
    "reasoning": Ask(CHAT, openai("thinker", messages=THOUGHT * 3 + [USER]), expects=DEEP),
    "reasoning-stream": Ask(CHAT, openai("thinker", messages=THOUGHT * 3 + [USER], **STREAM), expects=DEEP),
    "completions-stream": Ask("completions", {"model": "small", "prompt": "Été 😀", "max_tokens": 12, "temperature": 0, "stream": True}),
    "messages-stream": Ask("messages", openai(stream=True)),
    "responses-stream": Ask("responses", {"model": "small", "input": "Caption a cat.", "max_output_tokens": 16, "temperature": 0, "stream": True}),
    "error-unknown": Ask(CHAT, openai("nobody")),
    "error-json": Ask(CHAT, b'{"model": "small", "messages": ['),
    "error-type": Ask(CHAT, openai(temperature="hot")),
    "error-tools": Ask(CHAT, openai(tools=TOOLS)),
}  # fmt: skip
# Their requests, as the proxy puts them, are asked of Ollama's own API too.
MAPPED = [name for name, each in OPENAI.items() if each.path == CHAT and name not in ("error-json", "error-type")]
LOAD = {"model": "small", "stream": False}
NATIVE: dict[str, Ask] = {
    "root": Ask("/", method="GET"),
    "root-head": Ask("/", method="HEAD"),
    "version": Ask("/api/version", method="GET"),
    "tags": Ask("/api/tags", method="GET"),
    "models": Ask("/v1/models", method="GET"),
    "show": Ask("/api/show", {"model": "small"}),
    "ps-empty": Ask("/api/ps", method="GET"),
    "create": Ask("/api/create", {"model": MADE, "from": "small", "parameters": {"num_ctx": 2048}, "stream": False}),
    "load": Ask("/api/generate", {**LOAD, "keep_alive": -1, "options": {"num_ctx": 4096}}),
    "ps": Ask("/api/ps", method="GET"),
    "generate": Ask("/api/generate", {**LOAD, "prompt": "Été 😀", "options": {"temperature": 0, "num_predict": 8}}),
    "chat-length": Ask("/api/chat", native(limit=4)),
    "chat-logprobs": Ask("/api/chat", native(limit=6, logprobs=True, top_logprobs=2, stream=False)),
    "chat-unload": Ask("/api/chat", {"model": "thinker", "messages": [], "keep_alive": 0}),
    "error-no-model": Ask("/api/chat", {"messages": [USER]}),
    "error-json": Ask("/api/chat", b'{"model": "small", "messages": ['),
    "error-no-body": Ask("/api/chat", b""),
    "error-type": Ask("/api/chat", native(messages="hi")),
    "error-option": Ask("/api/chat", native(options={"num_predict": "many"})),
    "error-stop": Ask("/api/chat", native(options={"stop": [1]})),
    "error-format": Ask("/api/chat", native(format="xml")),
    "error-think": Ask("/api/chat", native(think="deeply")),
    "error-top-logprobs": Ask("/api/chat", native(top_logprobs=21)),
    "error-image": Ask("/api/chat", native(messages=[{**USER, "images": ["***"]}])),
    "error-cannot-think": Ask("/api/chat", native(think=True)),
    "error-long": Ask("/api/chat", native(messages=[LONG], truncate=False)),
    "error-long-stream-false": Ask("/api/chat", native(messages=[LONG], truncate=False, stream=False)),
    "strange-field": Ask("/api/chat", native(limit=2, surprise=1, stream=False)),
    "strange-option": Ask("/api/chat", native(options={"surprise": 1, "num_predict": 2}, stream=False)),
    "error-generate-model": Ask("/api/generate", {"model": "nobody"}),
    "error-show-model": Ask("/api/show", {"model": "nobody"}),
    "error-create-no-model": Ask("/api/create", {"from": "small", "stream": False}),
    "error-create-no-from": Ask("/api/create", {"model": MADE, "stream": False}),
    "strange-create": Ask("/api/create", {"model": MADE, "from": "small", "surprise": 1, "stream": False}),
    "error-route": Ask("/api/nothing", method="GET"),
    "error-method": Ask("/api/chat", method="GET"),
    "error-method-ps": Ask("/api/ps", {}),
    "unload": Ask("/api/generate", {**LOAD, "keep_alive": 0}),
    "unload-again": Ask("/api/generate", {**LOAD, "keep_alive": 0}),
}  # fmt: skip
WANTED = "a message longer than the context"


def ask(url: str, method: str, path: str, body: bytes) -> bytes:
    """The whole response as it comes over the wire."""
    where = urlsplit(url)
    kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if method in ("POST", "DELETE") else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{kind}Connection: close\r\n\r\n"
    with socket.create_connection((where.hostname or "127.0.0.1", where.port or 11434), 300) as client:
        client.sendall(head.encode() + body)
        answer = b""
        while data := client.recv(1 << 16):
            answer += data
    return answer


def encoded(body: dict[str, Any] | bytes | None) -> bytes:
    """As it is sent."""
    return body if isinstance(body, bytes) else b"" if body is None else json.dumps(body, ensure_ascii=False).encode()


def call(url: str, path: str, body: dict[str, Any]) -> None:
    """A request that has to go well."""
    answer = ask(url, "POST", path, encoded(body))
    if b" 200 " not in answer[:20]:
        raise RuntimeError(answer.decode())


def gone(url: str, model: str) -> None:
    """Unload it, and wait for that."""
    call(url, "/api/generate", {"model": model, "keep_alive": 0, "stream": False})
    end = time.monotonic() + 30
    while f'"{model}:latest"'.encode() in ask(url, "GET", "/api/ps", b"") and time.monotonic() < end:
        time.sleep(0.2)


def shown(body: dict[str, Any] | bytes | None) -> Any:
    """For the file beside an answer."""
    if isinstance(body, bytes):
        return body.decode()
    if body and body.get("messages") == [LONG]:
        return WANTED
    return body


def native_of(each: Ask) -> Ask:
    """The same as the proxy puts it to Ollama's own API."""
    return each._replace(path=request.PATH, body=json.loads(request.chat(encoded(each.body))))


def record(url: str, folder: Path, build: str) -> None:
    """Record all: what needs nothing loaded comes first."""
    version = json.loads(ask(url, "GET", "/api/version", b"").partition(b"\r\n\r\n")[2])["version"]
    ask(url, "DELETE", "/api/delete", encoded({"model": MADE}))
    for model in ("small", *MODELS):
        if model in MODELS:
            call(url, "/api/create", {"model": model, "from": "small", "template": MODELS[model], "stream": False})
        gone(url, model)
    meta = {"engine": "Ollama", "version": f"{version}; {build}" if build else version, "recorded": True}
    (folder / "ollama").mkdir(parents=True, exist_ok=True)
    control = dict(NATIVE)
    last = {name: control.pop(name) for name in ("unload", "unload-again")}
    mapped = {f"chat-{name}": native_of(OPENAI[name]) for name in MAPPED}
    jobs = [(folder / "ollama" / name, "", each) for name, each in (control | mapped | last).items()]
    jobs += [(folder / f"ollama-{name}", "/v1/", each) for name, each in OPENAI.items()]
    for place, before, each in jobs:
        place.with_suffix(".http").write_bytes(ask(url, each.method, before + each.path, encoded(each.body)))
        said = meta | {
            "command": COMMAND,
            "endpoint": each.path.removeprefix("/"),
            **({} if before else {"method": each.method}),
            "request": shown(each.body),
            **({"expects": each.expects} if each.expects else {}),
        }
        place.with_suffix(".json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    record(sys.argv[1], Path(sys.argv[2]), " ".join(sys.argv[3:4]))
