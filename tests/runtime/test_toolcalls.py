"""Calls that a model writes as text: made calls where a stack asks for it and the tools were declared, never else."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.runtime.toolcalls import HELD_BYTES, Normaliser, Tools, declared, read, whole

Make = Callable[..., Any]
Play = Callable[..., None]
TOOLS = Tools(frozenset({"weather", "time"}))
CALL = '{"name": "weather", "arguments": {"city": "Bern", "days": 2}}'
TIME = '{"name": "time", "parameters": {}}'
CALLS = {
    CALL: ["weather"],
    f"\n {CALL}\n": ["weather"],
    TIME: ["time"],
    '{"arguments": {"a": "}{\\\\\\""}, "name": "time"}': ["time"],
    f"<tool_call>\n{CALL}\n</tool_call>": ["weather"],
    f"<tool_call>{CALL}</tool_call>\n<tool_call>{TIME}</tool_call>\n": ["weather", "time"],
    f"[TOOL_CALLS] [{CALL}, {TIME}]": ["weather", "time"],
}
TEXTS = [
    "",
    "It rains.",
    '{"name": "Ada", "age": 3}',
    '{"name": "Ada", "arguments": {}}',
    '{"name": "weather"}',
    '{"name": "weather", "arguments": "Bern"}',
    '{"name": "weather", "arguments": {}, "parameters": {}}',
    '{"name": "weather", "arguments": {}, "id": 1}',
    '{"name": "weather", "arguments": {"city": Bern}}',
    CALL[:-1],
    f"Sure: {CALL}",
    f"{CALL} done",
    f"{CALL}{CALL}",
    f"```json\n{CALL}\n```",
    f"<tool_call>{CALL}",
    f"<tool_call>{CALL}</tool_call> done",
    "<tool_call></tool_call>",
    f"<tool_call>{CALL}</tool_call>{CALL}",
    '<tool_call>{"name": "rm", "arguments": {}}</tool_call>',
    f"[TOOL_CALLS]{CALL}",
    "[TOOL_CALLS][]",
    f'[TOOL_CALLS][{CALL}, {{"name": "rm", "arguments": {{}}}}]',
    f"[TOOL_CALLS][{CALL}] and",
    "[1, 2]",
]


def body(text: str | None, reason: str = "stop", **more: Any) -> bytes:
    message = {"role": "assistant", "content": text, **more}
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
    return json.dumps({"id": "x", "choices": [choice], "usage": {"total_tokens": 12}}).encode()


def event(**choice: Any) -> bytes:
    return b"data: " + json.dumps({"id": "x", "choices": [{"index": 0, **choice}]}).encode() + b"\n\n"


ROLE = event(delta={"role": "assistant", "content": ""}, finish_reason=None)
STOP = event(delta={}, finish_reason="stop")
END = b'data: {"choices":[],"usage":{"total_tokens":12}}\n\ndata: [DONE]\n\n'


def stream(text: str, size: int = 3, end: bytes = STOP) -> list[bytes]:
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    return [ROLE, *(event(delta={"content": piece}, finish_reason=None) for piece in pieces), end, END]


def passed(pieces: Sequence[bytes], tools: Tools = TOOLS) -> tuple[bytes, int]:
    normaliser = Normaliser(tools, "r")
    out = b"".join(map(normaliser.feed, pieces))
    return out + normaliser.end(), normaliser.count


def chunks(data: bytes) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in data.decode().split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize(("text", "names"), CALLS.items())
def test_an_answer_that_is_calls_of_declared_tools_becomes_calls(text: str, names: list[str]) -> None:
    made, count = whole(body(text), TOOLS, "r")
    choice = json.loads(made)["choices"][0]
    assert (count, choice["finish_reason"], choice["message"]["content"]) == (len(names), "tool_calls", None)
    calls = choice["message"]["tool_calls"]
    assert [call["function"]["name"] for call in calls] == names
    assert [(call["id"], call["type"]) for call in calls] == [(f"call_r_0_{n}", "function") for n in range(len(names))]
    assert all(isinstance(json.loads(call["function"]["arguments"]), dict) for call in calls)
    assert json.loads(made)["usage"] == {"total_tokens": 12}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_what_only_looks_like_a_call_passes_byte_for_byte(text: str, size: int) -> None:
    assert whole(body(text), TOOLS, "r") == (body(text), 0)
    pieces = stream(text, size)
    assert passed(pieces) == (b"".join(pieces), 0)


@given(st.text(alphabet='{}[]"\\:, <>/abtool_callnamewegrusTOOL_CALLS', max_size=60), st.integers(1, 9))
def test_no_text_without_a_whole_call_is_ever_changed(text: str, size: int) -> None:
    pieces = stream(text, size)
    if not any(name in text for name in ("weather", "time")):
        assert whole(body(text), TOOLS, "r") == (body(text), 0)
        assert passed(pieces) == (b"".join(pieces), 0)


@given(
    st.sampled_from([*CALLS, *TEXTS]),
    st.integers(1, 40),
    st.lists(st.integers(0, 3000), max_size=8),
    st.sampled_from([b"\n\n", b"\r\n\r\n"]),
)
def test_a_stream_says_what_the_short_answer_says_however_it_is_cut(
    text: str, size: int, cuts: list[int], end: bytes
) -> None:
    data = b"".join(stream(text, size))
    data = data.replace(b"\n\n", end)
    places = [0, *sorted(cuts), len(data)]
    out, count = passed([data[begin:end] for begin, end in pairwise(places)])
    short, expected = whole(body(text), TOOLS, "r")
    assert count == expected
    if not count:
        assert out == data
        return
    found = chunks(out.replace(b"\r\n", b"\n"))
    calls = [call for chunk in found for one in chunk["choices"] for call in one["delta"].get("tool_calls", [])]
    assert [call["function"] for call in calls] == [
        call["function"] for call in json.loads(short)["choices"][0]["message"]["tool_calls"]
    ]
    assert [call["index"] for call in calls] == list(range(count))
    assert not any(one["delta"].get("content") for chunk in found for one in chunk["choices"])
    assert [one["finish_reason"] for chunk in found for one in chunk["choices"] if one["finish_reason"]] == [
        "tool_calls"
    ]
    assert out.endswith(b"data: [DONE]" + end)


@pytest.mark.parametrize("reason", ["length", "content_filter", "tool_calls", None])
def test_an_answer_that_was_cut_off_is_no_call(reason: Any) -> None:
    assert whole(body(CALL, reason), TOOLS, "r") == (body(CALL, reason), 0)
    pieces = stream(CALL, end=event(delta={}, finish_reason=reason))
    assert passed(pieces) == (b"".join(pieces), 0)


def test_an_answer_with_calls_of_its_own_is_left_alone() -> None:
    own = [{"id": "a", "index": 0, "type": "function", "function": {"name": "time", "arguments": "{}"}}]
    assert whole(body(CALL, tool_calls=own), TOOLS, "r") == (body(CALL, tool_calls=own), 0)
    pieces = [event(delta={"content": CALL}), event(delta={"tool_calls": own}), STOP]
    assert passed(pieces) == (b"".join(pieces), 0)


def test_thoughts_roles_and_comments_stay_where_they_are() -> None:
    thought = event(delta={"reasoning": "hm"}, finish_reason=None)
    half = event(delta={"role": "assistant", "content": CALL[:9], "reasoning": "so"}, finish_reason=None)
    last = event(delta={"content": CALL[9:]}, finish_reason="stop")
    normaliser = Normaliser(TOOLS, "r")
    assert normaliser.feed(ROLE + thought + b": still here\n\n") == ROLE + thought + b": still here\n\n"
    out = normaliser.feed(half + b": there\n\n" + last)
    assert out.split(b"\n\n")[1] == b": there"
    begin, end = chunks(out.replace(b": there\n\n", b""))
    assert (begin["choices"][0]["delta"]["role"], begin["choices"][0]["delta"]["reasoning"]) == ("assistant", "so")
    assert begin["choices"][0]["delta"]["tool_calls"][0]["function"]["name"] == "weather"
    assert end["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "tool_calls"}


@pytest.mark.parametrize(
    ("text", "upto"),
    [("Hello there", 1), ('{"name": "Ada", "age": 3}', 11), (f"{CALL} done", len(CALL) + 2), ("[1]", 2)],
)
def test_text_is_held_back_only_while_it_may_become_a_call(text: str, upto: int) -> None:
    assert all(read(text[:at], TOOLS) is not None for at in range(upto))
    assert read(text[:upto], TOOLS) is None


def test_no_more_than_a_bound_is_held_back() -> None:
    long = CALL[:-4] + "x" * (2 * HELD_BYTES)
    normaliser, pieces = Normaliser(TOOLS, "r"), stream(long, 1000)
    held, out = 0, b""
    for piece in pieces:
        out += normaliser.feed(piece)
        held = max(held, sum(map(len, pieces[: pieces.index(piece)])) - len(out))
    assert held <= HELD_BYTES
    assert out + normaliser.end() == b"".join(pieces)


@pytest.mark.parametrize(
    "data",
    [
        b"data: {torn\n\n",
        b"event: ping\ndata: {}\n\n",
        event(index=1, delta={"content": CALL}),
        b"data: [DONE]\n\n",
        b"{}",
    ],
)
def test_a_stream_of_another_shape_passes(data: bytes) -> None:
    pieces = [event(delta={"content": CALL}, finish_reason=None), data, STOP]
    assert passed(pieces) == (b"".join(pieces), 0)


def test_several_answers_in_one_stream_pass() -> None:
    pieces = [event(index=1, delta={"content": CALL}), event(index=1, delta={}, finish_reason="stop"), END]
    assert passed(pieces) == (b"".join(pieces), 0)


@pytest.mark.parametrize("data", [b"", b"[]", b"no", b'{"choices":null}', b'{"choices":[{"message":null}]}', b"\xff"])
def test_an_answer_of_another_shape_passes(data: bytes) -> None:
    assert whole(data, TOOLS, "r") == (data, 0)


def test_several_calls_are_text_where_one_was_asked_for() -> None:
    one = Tools(TOOLS.names, parallel=False)
    text = f"<tool_call>{CALL}</tool_call><tool_call>{TIME}</tool_call>"
    assert read(text, one) is None
    assert isinstance(read(CALL, one), tuple)


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {}}}


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, None),
        ({"tools": []}, None),
        ({"tools": None}, None),
        ({"tools": "x"}, None),
        ({"tools": [tool("a"), tool("b")]}, Tools(frozenset({"a", "b"}))),
        ({"tools": [tool("a")], "tool_choice": "auto"}, Tools(frozenset({"a"}))),
        ({"tools": [tool("a")], "tool_choice": "none"}, None),
        ({"tools": [tool("a"), tool("b")], "tool_choice": tool("b")}, Tools(frozenset({"b"}))),
        ({"tools": [tool("a")], "parallel_tool_calls": False}, Tools(frozenset({"a"}), parallel=False)),
        ({"tools": [tool("no name")]}, None),
    ],
)
def test_only_declared_tools_may_be_called(fields: dict[str, Any], found: Tools | None) -> None:
    raw = msgspec.json.decode(json.dumps(fields), type=dict[str, msgspec.Raw])
    assert declared(raw) == found


def asked(model: str = "caller", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "weather?"}], **more}


ROUTES = {"caller": {"tool_calls": "normalise"}, "plain": {}}


def test_the_proxy_makes_calls_of_text_where_the_model_and_the_request_ask_for_it(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world(ROUTES) as w:
            for engine in w.engines.values():
                engine.said, engine.reason = CALL, "stop"
                await w.post(asked(engine.name))  # so that the next could take the fast path
            for model, tools, calls in (
                ("caller", [tool("weather")], 1),
                ("caller", [], 0),
                ("plain", [tool("weather")], 0),
            ):
                _, answer, headers = await w.post(asked(model, tools=tools))
                choice = answer["choices"][0]
                assert len(choice["message"].get("tool_calls", [])) == calls
                assert choice["finish_reason"] == ("tool_calls" if calls else "stop")
                assert headers.get("x-imageworks-tool-calls") == ("normalise" if calls else None)
                assert choice["message"]["content"] == (None if calls else CALL)
        lines = w.lines()
        assert [(line["normalised"], line["finish_reason"]) for line in lines[2:]] == [
            (1, "tool_calls"),
            (None, "stop"),
            (None, "stop"),
        ]

    play(story())


def test_a_client_library_sees_the_calls_of_a_stream(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world(ROUTES) as w:
            await w.post(asked())
            w.engines["caller"].pieces = tuple(stream(f"<tool_call>{CALL}</tool_call>", 7))
            answer = await w.client.chat.completions.create(**asked(tools=[tool("weather")], stream=True))
            found = [chunk.choices[0] async for chunk in answer if chunk.choices]
            calls = [call for choice in found for call in choice.delta.tool_calls or ()]
            assert [call.function.name for call in calls] == ["weather"]
            assert json.loads(calls[0].function.arguments) == {"city": "Bern", "days": 2}
            assert found[-1].finish_reason == "tool_calls"
        assert [(line["normalised"], line["finish_reason"]) for line in w.lines()[1:]] == [(1, "tool_calls")]

    play(story())


def test_what_was_held_back_of_a_stream_that_breaks_off_comes_before_its_error(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world(ROUTES) as w:
            engine = w.engines["caller"]
            held = event(delta={"content": CALL[:20]}, finish_reason=None)
            engine.pieces, engine.dies_mid_answer = (ROLE + held,), True
            engine.go_on.clear()
            async with w.http.post("/v1/chat/completions", json=asked(tools=[tool("weather")], stream=True)) as answer:
                assert answer.headers["x-imageworks-tool-calls"] == "normalise"
                assert await answer.content.readany() == ROLE
                engine.go_on.set()
                said = await answer.read()
            assert said.startswith(held)
            assert b'"code":"backend_error"' in said
            await engine.cleanup_later.cleanup()

    play(story())
