"""What is known to break engines and gateways is refused by default, before any engine sees a byte."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

Make = Callable[..., Any]
Play = Callable[[Coroutine[Any, Any, None]], None]


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


CORPUS = _load(Path(__file__).with_name("advisories.py")).CORPUS
ROUTE = {"backend": "vllm", "capabilities": ("chat", "vision", "tools"), "images_max": 8}


async def raw(port: int, data: bytes) -> bytes:
    """Send bytes, or `METHOD path` with a harmless body, and read until the connection ends."""
    if b"\r\n" not in data:
        data += b' HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 17\r\n\r\n{"model":"small"}'
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        return head + await reader.readexactly(length)
    finally:
        writer.transport.abort()


def test_no_request_of_the_corpus_reaches_an_engine(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": ROUTE}) as w:
            await w.post({"model": "small", "messages": [{"role": "user", "content": "hi"}]})
            engine, wrong = w.engines["small"], []
            assert engine.hits == 1
            for each in CORPUS:
                if each.raw:
                    head, _, body = (await raw(int(w.url.rpartition(":")[2]), each.raw)).partition(b"\r\n\r\n")
                    status, answer = int(head.split(b" ")[1]), msgspec.json.decode(body)
                else:
                    status, answer, _ = await w.post({"model": "small", **each.body}, path=each.path)
                code = answer.get("error", {}).get("code")
                if status != each.expected or (each.code and code != each.code) or engine.hits != 1:
                    wrong.append((each.advisory, each.what, status, code, engine.hits))
                    engine.hits = 1
            assert not wrong

    play(story())


@pytest.mark.parametrize(
    ("allowed", "body"),
    [
        ("video_url", {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}]}]}),
        ("chat_template_kwargs", {"messages": [], "chat_template_kwargs": {"enable_thinking": False}}),
    ],
)  # fmt: skip
def test_the_stack_may_allow_what_a_client_needs(world: Make, play: Play, allowed: str, body: dict[str, Any]) -> None:
    async def story() -> None:
        async with world({"small": ROUTE}, parameters=(allowed,)) as w:
            assert (await w.post({"model": "small", **body}))[0] == 200

    play(story())


def test_ordinary_schemas_and_patterns_pass(world: Make, play: Play) -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "type": {"type": ["string", "null"], "pattern": r"^(?<year>\d{4})-\p{L}+$"},
            "pattern": {"anyOf": [{"$ref": "#/$defs/x"}, {"type": "integer"}]},
        },
        "$defs": {"x": {"enum": ["a"]}},
        "additionalProperties": False,
    }
    bodies: list[dict[str, Any]] = [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]},
        {"response_format": {"type": "json_object"}},
        {"guided_json": msgspec.json.encode(schema).decode()},
        {"guided_regex": r"\w+@\w+\.com"},
        {"structured_outputs": {"json": schema}},
        {"format": "json"},
        {"tools": [], "n": 2, "stop": ["x"], "logprobs": True, "top_logprobs": 5, "background": None},
    ]

    async def story() -> None:
        async with world({"small": ROUTE}) as w:
            for body in bodies:
                status, answer, _ = await w.post({"model": "small", "messages": [], **body})
                assert status == 200, answer

    play(story())


def test_an_answer_in_the_background_is_refused_because_nobody_waits_for_it(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": ROUTE}) as w:
            status, answer, _ = await w.post({"model": "small", "input": "x", "background": True}, path="/v1/responses")
            assert (status, answer["error"]["param"]) == (400, "background")

    play(story())
