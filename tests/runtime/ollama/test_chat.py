"""Chats with Ollama through the proxy: the official client at one end, at the other a stand-in that refuses every field and
type that Ollama's source does not have."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest

Make = Callable[..., Any]
Play = Callable[[Coroutine[Any, Any, None]], None]
STANDIN = Path(__file__).parents[2] / "tools" / "ollama_standin.py"
ASK: dict[str, Any] = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TOOL: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def line(content: str = "", *, done: bool = False, **more: Any) -> str:
    message = {"role": "assistant", "content": content} | more.pop("message", {})
    end = {"done_reason": "stop", "prompt_eval_count": 11, "eval_count": 3} if done else {}
    return json.dumps(
        {"model": "m", "created_at": "2026-11-22T10:00:00Z", "message": message, "done": done, **end, **more}
    )


WHOLE = line("Hello", done=True)
STREAM = [line("Hel"), line("lo"), line(done=True)]


class Daemon:
    """The stand-in as a process, its knobs and what it noted."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port, self.folder = port, folder
        self.process = subprocess.Popen([sys.executable, str(STANDIN), str(port), str(folder)])
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return
        raise TimeoutError

    @property
    def route(self) -> dict[str, Any]:
        return {"backend": "ollama", "url": f"http://127.0.0.1:{self.port}", "served_name": "imageworks/m:latest-2048"}

    def say(self, *lines: str, **knobs: Any) -> None:
        (self.folder / "knobs.json").write_text(json.dumps({"chat": lines, **knobs}))

    def noted(self, file: str = "journal") -> list[str]:
        path = self.folder / file
        return path.read_text().splitlines() if path.exists() else []

    def chats(self) -> list[dict[str, Any]]:
        return [json.loads(text.removeprefix("chat ")) for text in self.noted() if text.startswith("chat {")]


@pytest.fixture
def daemon(tmp_path: Path, free_ports: Callable[[int], tuple[int, ...]]) -> Iterator[Daemon]:
    folder = tmp_path / "ollama"
    folder.mkdir()
    made = Daemon(free_ports(1)[0], folder)
    made.say(WHOLE)
    yield made
    made.process.terminate()
    made.process.wait()
    assert made.noted("violations") == []


def test_a_chat_is_answered_and_the_stacks_sampling_holds(world: Make, play: Play, daemon: Daemon) -> None:
    async def story() -> None:
        async with world({"small": {**daemon.route, "sampling": {"top_k": 20, "temperature": 0.5}}}) as w:
            answer = await w.client.chat.completions.create(**ASK, max_completion_tokens=9, temperature=0.1)
            assert (answer.model, answer.choices[0].message.content) == ("small", "Hello")
            assert answer.choices[0].finish_reason == "stop"
            assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 3)
            (record,) = w.lines()
            assert (record["tokens"]["in"], record["tokens"]["out"], record["finish_reason"]) == (11, 3, "stop")

    play(story())
    (said,) = daemon.chats()
    assert said["model"] == "imageworks/m:latest-2048"
    assert said["options"] == {"top_k": 20, "temperature": 0.1, "num_predict": 9}


def test_the_bound_of_a_role_reaches_ollama(world: Make, play: Play, role: Make, daemon: Daemon) -> None:
    async def story() -> None:
        async with world({"small": daemon.route}, roles={"caption": role("small", max_tokens=5)}) as w:
            status, _, headers = await w.post({**ASK, "model": "role:caption", "max_completion_tokens": 50})
            assert (status, headers["x-imageworks-clamped"]) == (200, "max_completion_tokens=5")

    play(story())
    assert daemon.chats()[0]["options"] == {"num_predict": 5}


def test_each_line_is_an_event_at_once(world: Make, play: Play, daemon: Daemon) -> None:
    async def story() -> None:
        daemon.say(STREAM[0], "WAIT", *STREAM[1:])
        async with world({"small": daemon.route}) as w:
            stream = await w.client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
            first = await anext(stream)
            assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "Hel")
            (daemon.folder / "go_on").touch()
            rest = [chunk async for chunk in stream]
            assert [choice.delta.content for chunk in rest for choice in chunk.choices] == ["lo", None]
            assert rest[-2].choices[0].finish_reason == "stop"
            assert rest[-1].usage is not None
            assert rest[-1].usage.total_tokens == 14
            assert len({chunk.id for chunk in (first, *rest)}) == 1

    play(story())


def test_a_stream_is_counted_where_nobody_asks_for_counts(world: Make, play: Play, daemon: Daemon) -> None:
    async def story() -> None:
        daemon.say(*STREAM)
        async with world({"small": daemon.route}) as w:
            chunks = [chunk async for chunk in await w.client.chat.completions.create(**ASK, stream=True)]
            assert [chunk.usage for chunk in chunks] == [None, None, None]
            await w.until(lambda: not w.proxy.active)
            (record,) = w.lines()
            assert (record["tokens"]["in"], record["tokens"]["out"], record["finish_reason"]) == (11, 3, "stop")
            assert record["outcome"] == "ok"

    play(story())


def test_tools_are_called_and_answered(world: Make, play: Play, daemon: Daemon) -> None:
    async def story() -> None:
        calls = [{"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"city": "København"}}}]
        daemon.say(line(message={"tool_calls": calls}), line(done=True))
        async with world({"small": daemon.route}) as w:
            create = w.client.chat.completions.create
            chunks = [chunk async for chunk in await create(**ASK, tools=[TOOL], tool_choice="auto", stream=True)]
            (call,) = chunks[0].choices[0].delta.tool_calls or []
            assert (call.id, json.loads(call.function.arguments)) == ("call_1", {"city": "København"})
            assert chunks[-1].choices[0].finish_reason == "tool_calls"
            daemon.say(WHOLE)
            said = {"role": "assistant", "tool_calls": [call.model_dump(exclude={"index"})]}
            told = {"role": "tool", "tool_call_id": "call_1", "content": "9 °C"}
            await create(model="small", messages=[*ASK["messages"], said, told], tools=[TOOL])

    play(story())
    _, called, answered = daemon.chats()[1]["messages"]
    assert called["tool_calls"] == [{"id": "call_1", "function": {"name": "f", "arguments": {"city": "København"}}}]
    assert answered == {"role": "tool", "content": "9 °C", "tool_name": "f", "tool_call_id": "call_1"}


@pytest.mark.parametrize("size", [1, 60_000])
def test_an_image_arrives_as_base64_however_large(world: Make, play: Play, daemon: Daemon, size: int) -> None:
    image = (PNG.rstrip("=") + "A" * 4 * size)[: 4 * size] if size > 1 else PNG

    async def story() -> None:
        part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}
        content = [{"type": "text", "text": "What is it?"}, part]
        able = {"capabilities": ("chat", "vision"), "images_max": 2}
        async with world({"small": {**daemon.route, **able}}) as w:
            messages = [{"role": "user", "content": content}]
            answer = await w.client.chat.completions.create(model="small", messages=messages)
            assert answer.choices[0].message.content == "Hello"

    play(story())
    assert daemon.chats()[0]["messages"] == [{"role": "user", "content": "What is it?", "images": [image]}]


def test_a_schema_is_asked_for_and_thoughts_and_probabilities_come_back(
    world: Make, play: Play, daemon: Daemon
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    probability = {"token": "Hi", "logprob": -0.5, "top_logprobs": [{"token": "Hi", "logprob": -0.5}]}

    async def story() -> None:
        daemon.say(line("Hi", done=True, message={"thinking": "hm"}, logprobs=[probability]))
        form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        async with world({"small": daemon.route}) as w:
            answer = await w.client.chat.completions.create(
                **ASK, response_format=form, reasoning_effort="low", logprobs=True, top_logprobs=1
            )
            (choice,) = answer.choices
            assert choice.message.model_extra == {"reasoning": "hm"}
            assert choice.logprobs is not None
            assert choice.logprobs.content is not None
            assert choice.logprobs.content[0].top_logprobs[0].logprob == -0.5

    play(story())
    (said,) = daemon.chats()
    assert (said["format"], said["think"], said["top_logprobs"]) == (schema, "low", 1)


def test_what_ollama_cannot_be_told_is_refused_before_anything_is_loaded(
    world: Make, play: Play, daemon: Daemon
) -> None:
    async def story() -> None:
        async with world({"small": daemon.route}) as w:
            with pytest.raises(openai.BadRequestError, match="`tool_choice` is not served by Ollama") as refusal:
                await w.client.chat.completions.create(**ASK, tools=[TOOL], tool_choice="required")
            assert refusal.value.param == "tool_choice"
            content = [{"type": "file", "file": {"file_id": "x"}}]
            with pytest.raises(openai.BadRequestError, match="a part of type 'file'"):
                await w.client.chat.completions.create(model="small", messages=[{"role": "user", "content": content}])
            assert w.engines["small"].starts == 0

    play(story())
    assert daemon.chats() == []


def test_another_engine_of_a_role_takes_what_ollama_cannot_be_told(
    world: Make, play: Play, role: Make, daemon: Daemon
) -> None:
    async def story() -> None:
        routes = {"small": daemon.route, "other": {}}
        async with world(routes, roles={"caption": role("small", "other")}) as w:
            ask = {**ASK, "model": "role:caption"}
            assert (await w.post({**ask, "n": 2}))[2]["x-imageworks-model"] == "other"
            assert (await w.post(ask))[2]["x-imageworks-model"] == "small"

    play(story())


def test_what_the_stack_strips_is_not_asked_of_ollama(world: Make, play: Play, daemon: Daemon) -> None:
    async def story() -> None:
        async with world({"small": {**daemon.route, "strip": ("logit_bias",)}}) as w:
            assert (await w.post({**ASK, "logit_bias": {"1": 5}}))[0] == 200

    play(story())


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_of_ollama_is_an_error_of_openai(world: Make, play: Play, daemon: Daemon, *, stream: bool) -> None:
    async def story() -> None:
        daemon.say(json.dumps({"error": "the input length exceeds the context length"}), chat_status=400)
        async with world({"small": daemon.route}) as w:
            with pytest.raises(openai.BadRequestError, match="exceeds the context length") as refusal:
                await w.client.chat.completions.create(**ASK, stream=stream)
            assert refusal.value.type == "invalid_request_error"

    play(story())
    assert daemon.chats()[0]["truncate"] is False


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ('{"error":"llama runner has died"}', "llama runner has died"),
        ("CUT", "`small` broke off its answer: the connection was closed"),
    ],
)
def test_a_stream_that_breaks_ends_with_one_error_and_no_done(
    world: Make, play: Play, daemon: Daemon, last: str, told: str
) -> None:
    async def story() -> None:
        daemon.say(STREAM[0], "WAIT", last)
        async with world({"small": daemon.route}) as w:
            async with w.http.post("/v1/chat/completions", json={**ASK, "stream": True}) as answer:
                assert (answer.status, answer.content_type) == (200, "text/event-stream")
                assert b'"Hel"' in await answer.content.readline()
                (daemon.folder / "go_on").touch()
                text = await answer.text()
            assert text.count('"error"') == 1
            assert told in text
            assert "[DONE]" not in text
            (record,) = w.lines()
            assert record["outcome"] == "backend_error"

    play(story())


def test_a_client_that_leaves_ends_ollamas_work(world: Make, play: Play, daemon: Daemon) -> None:
    async def story() -> None:
        daemon.say(STREAM[0], "WAIT", *STREAM[1:])
        async with world({"small": daemon.route}) as w:
            stream = await w.client.chat.completions.create(**ASK, stream=True)
            await anext(stream)
            await stream.close()
            await w.until(lambda: "chat cancelled" in daemon.noted())
            await w.until(lambda: not w.proxy.active)
            assert [line["outcome"] for line in w.lines()] == ["client_abort"]

    play(story())


def test_other_endpoints_go_to_ollamas_own_of_the_same_name(world: Make, play: Play, daemon: Daemon) -> None:
    async def story() -> None:
        async with world({"small": daemon.route}) as w:
            status, answer, _ = await w.post({"model": "small", "prompt": "a"}, "/v1/completions")
            assert (status, answer["choices"][0]["text"]) == (200, "x")

    play(story())


@pytest.mark.parametrize(("name", "value"), [("max_completion_tokens", 5), ("top_k", 5), ("echo", True), ("n", 2)])
def test_what_its_endpoint_for_texts_drops_is_refused(
    world: Make, play: Play, daemon: Daemon, name: str, value: object
) -> None:
    async def story() -> None:
        async with world({"small": daemon.route}) as w:
            status, answer, _ = await w.post({"model": "small", "prompt": "a", name: value}, "/v1/completions")
            assert (status, answer["error"]["param"]) == (400, name)
            ask = {"model": "small", "prompt": "a", "max_tokens": 5}
            assert (await w.post(ask, "/v1/completions"))[0] == 200

    play(story())
