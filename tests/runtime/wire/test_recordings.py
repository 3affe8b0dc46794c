"""Answers of engines, replayed byte by byte: what an official client makes of them behind the proxy is what they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

FOLDER = Path(__file__).parents[2] / "data" / "recordings"
NAMES = sorted(path.stem for path in FOLDER.glob("*.http"))
CHATS = [name for name in NAMES if "expects" in json.loads((FOLDER / f"{name}.json").read_text())]


class Script:
    """As the bed's own."""

    def __init__(self, steps: tuple[object, ...]) -> None:
        self.steps = steps


def meta(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def raw(name: str) -> bytes:
    return (FOLDER / f"{name}.http").read_bytes()


def body(answer: bytes) -> bytes:
    """The body without its framing."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return rest
    found = b""
    while size := int(rest.partition(b"\r\n")[0], 16):
        rest = rest.partition(b"\r\n")[2]
        found, rest = found + rest[:size], rest[size + 2 :]
    return found


def replay(bed: Any, name: str, size: int) -> None:
    data = raw(name)
    closes = ("drop",) if b"\r\nConnection: close\r\n" in data else ()
    bed.engine.scripts[name] = Script((*(data[at : at + size] for at in range(0, len(data), size)), *closes))


def test_each_says_where_it_comes_from() -> None:
    assert {meta(name)["engine"] for name in NAMES} == {"llama.cpp", "Ollama", "vLLM"}
    for name in NAMES:
        found = meta(name)
        assert found["recorded"]
        assert found["version"]
        assert found["command"]


@pytest.mark.parametrize("size", [1, 1 << 20], ids=["byte by byte", "at once"])
@pytest.mark.parametrize("name", NAMES)
def test_the_client_gets_the_bytes(bed: Any, wire: Callable[[], Any], name: str, size: int) -> None:
    replay(bed, name, size)
    sent = json.dumps({"model": "small", "user": name, "stream": b"event-stream" in raw(name)}).encode()
    line, path = wire(), f"/v1/{meta(name)['endpoint']}".encode()
    line.send(b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (path, len(sent), sent))
    response = line.response()
    assert response.whole
    assert response.status == int(raw(name).split(b" ")[1])
    assert response.body == body(raw(name))


@pytest.mark.parametrize("name", CHATS)
def test_the_official_client_reads_every_call_reason_and_count(bed: Any, name: str) -> None:
    replay(bed, name, 1)
    with openai.OpenAI(base_url=f"http://127.0.0.1:{bed.port}/v1", api_key="none", max_retries=0) as client:
        ask: dict[str, Any] = {"model": "small", "messages": [], "user": name}
        found = _streamed(client, ask) if meta(name)["request"].get("stream") else _whole(client, ask)
    expected = {"content": "", "reasoning": "", **meta(name)["expects"]}
    assert found == expected
    for call in found["tool_calls"]:
        json.loads(call["arguments"])


def _reasoning(message: object) -> str:
    """vLLM says `reasoning`, llama.cpp `reasoning_content`; the official client knows neither."""
    return getattr(message, "reasoning", None) or getattr(message, "reasoning_content", None) or ""


def _whole(client: openai.OpenAI, ask: dict[str, Any]) -> dict[str, Any]:
    choice = client.chat.completions.create(**ask).choices[0]
    calls = [{"name": c.function.name, "arguments": c.function.arguments} for c in choice.message.tool_calls or ()]
    return {
        "content": choice.message.content or "",
        "reasoning": _reasoning(choice.message),
        "tool_calls": calls,
        "finish_reason": choice.finish_reason,
    }


def _streamed(client: openai.OpenAI, ask: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"content": "", "reasoning": "", "tool_calls": [], "finish_reason": None}
    for chunk in client.chat.completions.create(**ask, stream=True):
        for choice in chunk.choices:
            found["content"] += choice.delta.content or ""
            found["reasoning"] += _reasoning(choice.delta)
            found["finish_reason"] = choice.finish_reason or found["finish_reason"]
            for call in choice.delta.tool_calls or ():
                if call.index == len(found["tool_calls"]):
                    found["tool_calls"].append({"name": "", "arguments": ""})
                into = found["tool_calls"][call.index]
                into["name"] += call.function.name or ""
                into["arguments"] += call.function.arguments or ""
    return found
