"""Ollama's answers in OpenAI's words. The answers are those of Ollama's docs/api.md and of its own tests of its endpoint."""

from __future__ import annotations

import json
from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.runtime.ollama.answer import BrokenError, Translation, error

Line = dict[str, Any]
COUNTS = {"total_duration": 4883583458, "load_duration": 1334875, "prompt_eval_count": 26, "prompt_eval_duration": 342546000, "eval_count": 282, "eval_duration": 4535599000}  # fmt: skip
# the first example of docs/api.md: no done_reason, which older versions do not send
SKY: list[Line] = [
    {"model": "llama3.2", "created_at": "2023-08-04T08:52:19.385406455-07:00", "message": {"role": "assistant", "content": "The", "images": None}, "done": False},
    {"model": "llama3.2", "created_at": "2023-08-04T19:22:45.499127Z", "message": {"role": "assistant", "content": ""}, "done": True, **COUNTS},
]  # fmt: skip
# the example of docs/api.md with tools
TOKYO: list[Line] = [
    {"model": "llama3.2", "created_at": "2025-07-07T20:22:19.184789Z", "message": {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Tokyo"}}}]}, "done": False},
    {"model": "llama3.2", "created_at": "2025-07-07T20:22:19.19314Z", "message": {"role": "assistant", "content": ""}, "done_reason": "stop", "done": True, "total_duration": 182242375, "load_duration": 41295167, "prompt_eval_count": 169, "prompt_eval_duration": 24573166, "eval_count": 15, "eval_duration": 115959084},
]  # fmt: skip
# the example of docs/api.md with a schema
FORMAT: Line = {"model": "llama3.1", "created_at": "2024-12-06T00:46:58.265747Z", "message": {"role": "assistant", "content": '{"age": 22, "available": false}'}, "done_reason": "stop", "done": True, "total_duration": 2254970291, "load_duration": 574751416, "prompt_eval_count": 34, "prompt_eval_duration": 1502000000, "eval_count": 12, "eval_duration": 175000000}  # fmt: skip
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "system_fingerprint": "fp_ollama"}
END: Line = {"model": "m", "message": {"content": ""}, "done": True, "done_reason": "stop"}


def translation(*, stream: bool = True, usage: bool = False) -> Translation:
    return Translation("chatcmpl-1", 7, "small", stream=stream, usage=usage)


def lines(*given: Line) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in given)


def streamed(text: bytes, cuts: list[int] | None = None, *, usage: bool = False) -> bytes:
    made, places = translation(usage=usage), [0, *sorted(cut % (len(text) + 1) for cut in cuts or ()), len(text)]
    pieces = [piece for begin, end in pairwise(places) for piece in made.feed(text[begin:end])]
    return b"".join((*pieces, *made.end()))


def frames(text: bytes) -> list[Any]:
    parts = text.split(b"\n\n")
    assert parts.pop() == b""
    assert all(part.startswith(b"data: ") and b"\n" not in part for part in parts)
    return [part[6:].decode() if part == b"data: [DONE]" else json.loads(part[6:]) for part in parts]


def choices(text: bytes) -> list[dict[str, Any]]:
    return [choice for frame in frames(text) if isinstance(frame, dict) for choice in frame["choices"]]


def test_a_stream_becomes_chunks_an_end_the_counts_and_done() -> None:
    model = {**HEAD, "model": "small"}
    assert frames(streamed(lines(*SKY), usage=True)) == [
        {**model, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "The"}, "finish_reason": None}]},
        {**model, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**model, "choices": [], "usage": {"prompt_tokens": 26, "completion_tokens": 282, "total_tokens": 308}},
        "[DONE]",
    ]


def test_nothing_follows_the_end() -> None:
    assert streamed(lines(*SKY, *SKY)) == streamed(lines(*SKY))


def test_nobody_gets_counts_who_did_not_ask() -> None:
    assert b"usage" not in streamed(lines(*SKY))


def test_a_call_has_an_id_a_number_and_its_arguments_as_text() -> None:
    first, last = choices(streamed(lines(*TOKYO)))
    function = {"name": "get_weather", "arguments": '{"city": "Tokyo"}'}
    call = {"id": "call_chatcmpl-1_0", "index": 0, "type": "function", "function": function}
    assert first["delta"] == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert last == {"index": 0, "delta": {}, "finish_reason": "tool_calls"}


def test_calls_are_numbered_through_the_stream_and_keep_their_ids() -> None:
    def calling(*ids: str) -> Line:
        calls = [{"id": name, "function": {"index": 0, "name": "f", "arguments": {}}} for name in ids]
        return {"model": "m", "message": {"content": "", "tool_calls": calls}, "done": False}

    found = choices(streamed(lines(calling("call_a"), calling("call_b", "call_c"), calling("call_d"), END)))
    calls = [call for choice in found for call in choice["delta"].get("tool_calls", ())]
    assert [(call["id"], call["index"]) for call in calls] == [
        ("call_a", 0),
        ("call_b", 1),
        ("call_c", 2),
        ("call_d", 3),
    ]


def test_thought_and_word_of_one_line_are_two_chunks() -> None:
    line = {"model": "m", "message": {"thinking": "reasoning", "content": "final answer"}, "done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 2}  # fmt: skip
    found = choices(streamed(lines(line)))
    assert [choice["delta"] for choice in found] == [
        {"role": "assistant", "reasoning": "reasoning"},
        {"content": "final answer"},
        {},
    ]
    assert [choice["finish_reason"] for choice in found] == [None, None, "stop"]


def test_a_thought_alone_is_one_chunk() -> None:
    thought = {"model": "m", "message": {"thinking": "hm", "content": ""}, "done": False}
    assert choices(streamed(lines(thought, END)))[0]["delta"] == {"role": "assistant", "content": "", "reasoning": "hm"}


def test_an_empty_answer_still_opens_with_a_role() -> None:
    assert [choice["delta"] for choice in choices(streamed(lines(END)))] == [{"role": "assistant", "content": ""}, {}]


def test_a_limit_that_was_reached_is_told() -> None:
    assert choices(streamed(lines({**END, "done_reason": "length"})))[-1]["finish_reason"] == "length"


def test_probabilities_have_openais_form() -> None:
    top = [{"token": "Hello", "logprob": -0.5}, {"token": "Hi", "logprob": -1.2, "bytes": [72, 105]}]
    line = {
        **END,
        "message": {"content": "Hello"},
        "logprobs": [{"token": "Hello", "logprob": -0.5, "top_logprobs": top}],
    }
    content = choices(streamed(lines(line)))[0]["logprobs"]["content"]
    assert content == [
        {
            "token": "Hello",
            "logprob": -0.5,
            "bytes": None,
            "top_logprobs": [{**top[0], "bytes": None}, top[1]],
        }
    ]


def test_one_object_becomes_one_object() -> None:
    made = translation(stream=False)
    assert list(made.feed(json.dumps(FORMAT, indent=2).encode())) == []
    (body,) = made.end()
    assert json.loads(body) == {
        **HEAD,
        "object": "chat.completion",
        "model": "small",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": '{"age": 22, "available": false}'},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 34, "completion_tokens": 12, "total_tokens": 46},
    }


def test_a_whole_answer_carries_thoughts_and_calls() -> None:
    made = translation(stream=False)
    message = {"thinking": "hm", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}
    list(made.feed(json.dumps({**END, "message": message}).encode()))
    (choice,) = json.loads(next(made.end()))["choices"]
    assert choice["message"]["reasoning"] == "hm"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'.replace(":", ": ")}
    assert choice["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (b'{"error":"llama runner process no longer running: -1"}\n', "llama runner process no longer running: -1"),
        (b"", "ended before it was done"),
        (b'{"model":"m","mess', "not Ollama's"),
        (b"<html>\n", "not Ollama's"),
        (b"\xff\n", "not Ollama's"),
    ],
)
def test_what_came_before_a_break_is_passed_on_and_no_end_is_said(last: bytes, told: str) -> None:
    made = translation()
    passed: list[bytes] = []
    with pytest.raises(BrokenError, match=told):
        passed.extend(chain(made.feed(lines(SKY[0]) + last), made.end()))
    assert len(passed) == 1
    assert b'"The"' in passed[0]


def test_a_whole_answer_that_is_torn_is_broken() -> None:
    made = translation(stream=False)
    list(made.feed(b'{"model":"m","mess'))
    with pytest.raises(BrokenError, match="not Ollama's"):
        list(made.end())


def test_a_line_without_end_is_not_kept_for_ever() -> None:
    made = translation()
    for _ in range(16):
        assert list(made.feed(b"x" * (1 << 20))) == []
    with pytest.raises(BrokenError, match="16 MiB"):
        list(made.feed(b"x"))


def test_an_event_goes_out_with_the_byte_that_ends_its_line() -> None:
    made = translation()
    text = lines(SKY[0])
    assert list(made.feed(text[:-1])) == []
    assert len(list(made.feed(text[-1:]))) == 1


@pytest.mark.parametrize(
    ("status", "body", "message", "kind"),
    [
        (404, b'{"error":"model \'x\' not found"}', "model 'x' not found", "not_found_error"),
        (400, b'{"error":"the input length exceeds the context length"}', "the input length exceeds the context length", "invalid_request_error"),
        (500, b"oops", "oops", "api_error"),
        (503, b'{"error":{"message":"x"}}', '{"error":{"message":"x"}}', "api_error"),
    ],
)  # fmt: skip
def test_an_error_has_openais_form(status: int, body: bytes, message: str, kind: str) -> None:
    assert json.loads(error(status, body)) == {"error": {"message": message, "type": kind, "param": None, "code": None}}


TEXT = st.text(max_size=20) | st.sampled_from(
    ["é", "日本語", "😀👩‍👩‍👧", "\u202e", "a\u0301", "\u2028", "\n\n", "data: [DONE]\n\n"]
)


@given(st.lists(TEXT, max_size=6), st.lists(st.integers(0, 1 << 12), max_size=12))
def test_where_the_pieces_are_cut_changes_nothing(texts: list[str], cuts: list[int]) -> None:
    given_lines = [{"model": "m", "message": {"content": text}, "done": False} for text in texts]
    text = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in (*given_lines, END))
    assert streamed(text, cuts) == streamed(text)
    assert streamed(text, list(range(len(text)))) == streamed(text)
    assert "".join(choice["delta"].get("content", "") for choice in choices(streamed(text))) == "".join(texts)
