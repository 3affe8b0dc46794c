"""Facts at the end of an answer, however the network cuts it."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

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
