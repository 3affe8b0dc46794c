"""Requests that break, or broke, an engine or a gateway, by advisory. Data only.

Each line is one request as an attacker sends it: `body` for `path`, or `raw` bytes. `expected` is the status with which
the proxy refuses it. The texts are written after the advisories' descriptions; none is a working exploit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
HI = [{"role": "user", "content": "hi"}]
JPEG2000 = "data:video/mp4;base64,AAAADGpQICANCocK"


@dataclass(frozen=True)
class Request:
    advisory: str
    what: str
    body: dict[str, Any] = field(default_factory=dict)
    path: str = CHAT
    expected: int = 400
    code: str = "parameter_refused"
    raw: bytes = b""


def parts(*found: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(found)}]}


def image(url: str) -> dict[str, Any]:
    return parts({"type": "image_url", "image_url": {"url": url}})


def tool(parameters: Any) -> dict[str, Any]:
    return {"messages": HI, "tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}]}


def path(advisory: str, what: str, line: str, status: int = 404) -> Request:
    return Request(advisory, what, raw=line.encode(), expected=status, code="")


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


REMOTE = "remote_media_refused"
SCHEMA = "invalid_schema"
CORPUS = (
    # media, at vLLM
    Request("CVE-2026-22778", "video into the decoder", parts({"type": "video_url", "video_url": {"url": JPEG2000}})),
    Request("CVE-2026-22778", "video by its key only", parts({"type": "text", "text": "x", "video_url": JPEG2000})),
    Request("CVE-2026-22778", "arguments for the image processor", {"messages": HI, "mm_processor_kwargs": {"num_crops": 1}}),
    Request("CVE-2026-22778", "arguments for the media reader", {"messages": HI, "media_io_kwargs": {"video": {"num_frames": -1}}}),
    Request("CVE-2025-6242", "an address of this machine", image("http://127.0.0.1:2375/v1.24/info"), code=REMOTE),
    Request("CVE-2025-6242", "the cloud's metadata", image("http://169.254.169.254/latest/meta-data/"), code=REMOTE),
    Request("CVE-2025-6242", "a file", image("file:///etc/passwd"), code=REMOTE),
    Request("CVE-2025-6242", "a video by address", parts({"type": "video_url", "video_url": {"url": "http://10.0.0.1/x.mp4"}}), code=REMOTE),
    Request("CVE-2025-6242", "audio by address", parts({"type": "audio_url", "audio_url": {"url": "http://10.0.0.1/x.wav"}}), code=REMOTE),
    Request("CVE-2026-24779", "a backslash that two parsers read differently", image("https://good.example\\@127.0.0.1/"), code=REMOTE),
    Request("CVE-2026-24779", "user and host swapped", image("http://good.example@127.0.0.1/"), code=REMOTE),
    Request("CVE-2026-24779", "no scheme", image("//127.0.0.1/x.png"), code=REMOTE),
    Request("CVE-2026-24779", "white space before the scheme", image(" http://127.0.0.1/x.png"), code=REMOTE),
    # amounts, at vLLM
    Request("CVE-2026-34756", "answers without bound", {"messages": HI, "n": 16384}, code="invalid_field"),
    Request("CVE-2026-34756", "candidates without bound", {"prompt": "x", "best_of": 2**31}, TEXT, code="invalid_field"),
    Request("CVE-2026-34756", "beams", {"messages": HI, "use_beam_search": True}),
    Request("CVE-2026-34756", "a number as a text", {"messages": HI, "n": "16384"}, code="invalid_field"),
    Request("CVE-2025-48956", "a giant header", raw=b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * (1 << 20) + b"\r\n\r\n", expected=431, code="headers_too_large"),
    # grammars and schemas, at vLLM
    Request("CVE-2025-48942", "a type that is none", {"messages": HI, "guided_json": {"properties": {"r": {"type": "stsring"}}}}, code=SCHEMA),
    Request("CVE-2025-48942", "the same as a text", {"messages": HI, "guided_json": '{"type":"kaboom"}'}, code=SCHEMA),
    Request("CVE-2025-48942", "the same in a response format", {"messages": HI, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"items": {"type": 7}}}}}, code=SCHEMA),
    Request("CVE-2025-48943", "a pattern that is none", {"prompt": "x", "guided_regex": "[a-\\d"}, TEXT, code=SCHEMA),
    Request("CVE-2025-48943", "the same in structured outputs", {"messages": HI, "structured_outputs": {"regex": "(a"}}, code=SCHEMA),
    Request("CVE-2025-48943", "a grammar", {"messages": HI, "guided_grammar": "root ::= root"}),
    Request("CVE-2025-48944", "a tool's pattern", tool({"type": "object", "properties": {"a": {"type": "string", "pattern": "[\\"}}}), code=SCHEMA),
    Request("CVE-2025-48944", "a tool's type", tool({"type": "something"}), code=SCHEMA),
    Request("CVE-2025-48944", "a schema too deep", tool(_nested(80)), code=SCHEMA),
    Request("CVE-2025-48944", "a choice of the decoder", {"messages": HI, "guided_decoding_backend": "outlines:no-fallback"}),
    # code and memory, at vLLM
    Request("CVE-2025-61620", "a template of the client's", {"messages": HI, "chat_template": "{% for _ in range(9**9) %}{% endfor %}"}),
    Request("CVE-2025-62426", "arguments for the template", {"messages": HI, "chat_template_kwargs": {"tokenize": True}}),
    Request("CVE-2025-62426", "the template renamed", {"messages": HI, "tokenize": True}, code="unknown_parameter"),
    Request("CVE-2025-62164", "a pickled tensor", {"prompt": "x", "prompt_embeds": "UEsDBAAA"}, TEXT),
    Request("CVE-2025-32444", "memory moved between engines", {"messages": HI, "kv_transfer_params": {"remote_host": "10.0.0.1"}}),
    Request("CVE-2025-47277", "the same by its other name", {"messages": HI, "vllm_xargs": {"remote_port": 1}}),
    Request("CVE-2025-24357", "weights to load", raw=b"POST /v1/load_lora_adapter", expected=404, code=""),
    Request("vLLM logits processors", "code by name", {"messages": HI, "logits_processors": ["os.system"]}),
    path("vLLM paths beside /v1", "inference past the key", "POST /invocations"),
    path("vLLM paths beside /v1", "a call into every worker", "POST /collective_rpc"),
    path("vLLM paths beside /v1", "stop the engine", "POST /pause"),
    path("vLLM paths beside /v1", "other weights", "POST /update_weights"),
    path("vLLM paths beside /v1", "memory away", "POST /sleep?level=2"),
    path("vLLM paths beside /v1", "the path hidden", "POST /v1/%2e%2e/invocations", 400),
    path("vLLM paths beside /v1", "the path hidden by slashes", "POST //invocations", 400),
    # Ollama
    path("CVE-2026-7482", "a model from a file that reads memory", "POST /api/create"),
    path("CVE-2026-7482", "and out with it", "POST /api/push"),
    path("CVE-2026-5530", "a pull from inside", "POST /api/pull"),
    path("CVE-2024-37032", "a blob", "POST /api/blobs/sha256:0"),
    path("GO-2025-4251", "delete", "DELETE /api/delete"),
    path("GO-2025-3824", "copy", "POST /api/copy"),
    Request("Ollama options", "reload with another context", {"messages": HI, "options": {"num_ctx": 1 << 30}}),
    Request("Ollama options", "never unload", {"messages": HI, "keep_alive": -1}),
    # llama.cpp
    Request("CVE-2026-21869", "a negative shift", {"prompt": "x", "n_discard": -1}, TEXT),
    Request("CVE-2026-21869", "the neighbour of it", {"prompt": "x", "n_keep": -5}, TEXT),
    Request("llama.cpp slots", "another client's slot", {"messages": HI, "id_slot": 0}),
    Request("llama.cpp grammars", "a grammar", {"messages": HI, "grammar": "root ::= (root)*"}),
    path("llama.cpp slots", "a slot written to disk", "POST /slots/0?action=save"),
    path("llama.cpp paths", "settings", "POST /props"),
    path("llama.cpp paths", "a fetch for somebody", "GET /cors-proxy?url=http://10.0.0.1/"),
    # gateways
    Request("CVE-2024-6587", "where the request goes", {"messages": HI, "api_base": "http://10.0.0.1/"}),
    Request("CVE-2024-6587", "the same by its other name", {"messages": HI, "base_url": "http://10.0.0.1/"}),
    Request("CVE-2024-6587", "and with which key", {"messages": HI, "api_key": "sk-x"}),
    Request("CVE-2026-42271", "a command to run", {"messages": HI, "mcp_servers": [{"command": "sh"}]}, code="unknown_parameter"),
    Request("CVE-2026-30623", "a tool at an address", {"input": "x", "tools": [{"type": "mcp", "server_url": "http://10.0.0.1/"}]}, "/v1/responses", code=REMOTE),
    Request("CVE-2026-48710", "a Host that hides another", raw=b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost/@evil.example\r\nContent-Length: 0\r\n\r\n", code="bad_request"),
    Request("CVE-2024-28224", "a name rebound to this machine", raw=b"POST /v1/chat/completions HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n", expected=403, code="host_refused"),
    Request("prototype pollution", "a name that is none", {"messages": HI, "__proto__": {}}, code="unknown_parameter"),
    Request("a second model", "what two parsers read differently", raw=b'POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 37\r\n\r\n{"model":"small","model":"elsewhere"}', expected=404, code="model_not_found"),
)  # fmt: skip
