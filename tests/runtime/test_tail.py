"""Facts at the end of an answer, however the network cuts it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.runtime import tail as tail_module
from imageworks.runtime.tail import KEEP, Facts, Tail, facts_of

STREAM = (
    b'data: {"choices":[{"index":0,"delta":{"content":"a\\ndata: {}"}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":1}}}\n\n'
    b"data: [DONE]\n\n"
)
EXPECTED = Facts(tokens_in=7, tokens_cached=None, tokens_out=2, tokens_reasoning=1, finish_reason="stop")


@given(st.lists(st.integers(0, len(STREAM)), max_size=10), st.booleans())
def test_however_it_is_cut_the_facts_are_the_same(cuts: list[int], long: bool) -> None:  # noqa: FBT001 - hypothesis passes it so
    tail = Tail()
    if long:
        tail.feed(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n' * (3 * KEEP // 40))
    places = [0, *sorted(cuts), len(STREAM)]
    for begin, end in itertools.pairwise(places):
        tail.feed(STREAM[begin:end])
    assert tail.facts() == EXPECTED


def test_llama_cpps_timings_are_used_where_no_usage_was_asked_for() -> None:
    tail = Tail()
    tail.feed(b'data: {"choices":[{"finish_reason":"stop"}],"timings":{"cache_n":4,"prompt_n":3,"predicted_n":9}}\n\n')
    assert tail.facts() == Facts(tokens_in=7, tokens_cached=4, tokens_out=9, finish_reason="stop")


@given(st.binary(max_size=80))
def test_what_cannot_be_read_is_unknown_and_no_error(body: bytes) -> None:
    facts_of(body)
    tail = Tail()
    tail.feed(b"data: " + body)
    tail.facts()


def test_an_answer_without_usage_has_none_and_not_zero() -> None:
    assert facts_of(b'{"choices":[{"finish_reason":"length"}]}') == Facts(finish_reason="length")


ANTHROPIC = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":9,"cache_read_input_tokens":4}}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"hi"}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"output_tokens":3}}\n\n'
)
RESPONSES = (
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"hi"}\n\n'
    b'event: response.completed\ndata: {"type":"response.completed","response":{"status":"completed","usage":{"input_tokens":9,'
    b'"output_tokens":3,"input_tokens_details":{"cached_tokens":4},"output_tokens_details":{"reasoning_tokens":1}}}}\n\n'
)


def test_every_dialect_says_what_was_used_and_why_it_ended() -> None:
    tail = Tail()
    tail.feed(ANTHROPIC)
    assert tail.facts() == Facts(tokens_in=9, tokens_cached=4, tokens_out=3, finish_reason="length")
    tail = Tail()
    tail.feed(RESPONSES)
    assert tail.facts() == Facts(tokens_in=9, tokens_cached=4, tokens_out=3, tokens_reasoning=1, finish_reason="stop")
    whole = facts_of(b'{"type":"message","stop_reason":"tool_use","usage":{"input_tokens":2,"output_tokens":1}}')
    assert whole == Facts(tokens_in=2, tokens_out=1, finish_reason="tool_calls")


def test_the_end_of_a_stream_is_known_in_every_dialect() -> None:
    for stream, end in (
        (STREAM.removesuffix(b"data: [DONE]\n\n"), b"data: [DONE]\n\n"),
        (ANTHROPIC, b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
        (RESPONSES[: RESPONSES.rindex(b"event:")], RESPONSES[RESPONSES.rindex(b"event:") :]),
    ):
        tail = Tail()
        tail.feed(stream)
        assert not tail.ended()
        tail.feed(end)
        assert tail.ended()


def test_an_event_that_says_nothing_of_itself_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of events end at once where many streams do; each decoded would hold up all others."""
    decoded: list[bytes] = []
    note = tail_module._note

    def counted(facts: Facts, text: bytes) -> None:
        decoded.append(text)
        note(facts, text)

    monkeypatch.setattr(tail_module, "_note", counted)
    silent = b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":null}],"usage":null}\n\n'
    spaced = b'data: {"choices": [{"delta": {"content": "x"}, "finish_reason": null}]}\n\n'
    last = (
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":5}}\n\n'
    )
    tail = Tail()
    for event in (*[silent] * 100, spaced, last, b"data: [DONE]\n\n"):
        tail.feed(event)
    assert tail.facts() == Facts(tokens_in=3, tokens_out=5, finish_reason="stop")
    assert len([text for text in decoded if text]) == 2


def test_the_words_of_a_fact_inside_a_text_are_no_fact() -> None:
    tail = Tail()
    tail.feed(
        b'data: {"choices":[{"delta":{"content":"\\"usage\\":{\\"finish_reason\\":\\"stop\\"}"},"finish_reason":null}]}\n\n'
    )
    assert tail.facts() == Facts()
