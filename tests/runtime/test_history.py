"""What is sent of a conversation: vision and reasoning history."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.contract import HistoryRule as Rule
from imageworks.runtime.history import Cut, Room, reasoning, vision

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100}}
WIDE = Room(tokens=100_000, images=100, image_tokens=1000)


def user(text: str, images: int = 0) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text}, *[IMAGE] * images] if images else text}


def bot(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "be short"}


def raw(messages: list[Any]) -> list[msgspec.Raw]:
    return msgspec.json.decode(json.dumps(messages).encode(), type=list[msgspec.Raw])


def sent(cut: Cut) -> list[Any]:
    return [json.loads(bytes(message)) for message in cut.messages]


def test_only_the_current_turn_is_sent_by_default() -> None:
    talk = [SYSTEM, user("one", 1), bot("1"), user("two", 1), bot("2"), user("three", 1)]
    cut = vision(raw(talk), Rule(0), WIDE)
    assert sent(cut) == [SYSTEM, user("three", 1)]
    assert (cut.told, cut.dropped, cut.dropped_images) == ("messages=4, images=2", 4, 2)


@pytest.mark.parametrize(("turns", "first"), [(1, 3), (2, 1), (9, 1)])
def test_so_many_turns_before_it_are_kept(turns: int, first: int) -> None:
    talk = [SYSTEM, user("one", 1), bot("1"), user("two"), bot("2"), user("three", 1)]
    assert sent(vision(raw(talk), Rule(turns), WIDE)) == [SYSTEM, *talk[first:]]


def test_a_question_about_an_earlier_image_keeps_its_turn() -> None:
    talk = [user("old", 1), bot("1"), user("look", 1), bot("2"), user("and?"), bot("3"), user("what colour?")]
    cut = vision(raw(talk), Rule(0), WIDE)
    assert sent(cut) == [user("look", 1), bot("2"), user("what colour?")]
    assert cut.dropped_images == 1


def test_a_conversation_without_images_is_left_alone() -> None:
    talk = [SYSTEM, *[user("x"), bot("y")] * 20, user("z")]
    cut = vision(raw(talk), Rule(0), Room(tokens=1))
    assert (sent(cut), cut.told) == (talk, None)


def test_system_messages_go_where_the_rule_says_so() -> None:
    talk = [SYSTEM, user("one", 1)]
    assert sent(vision(raw(talk), Rule(0, keep_system=False), WIDE)) == [user("one", 1)]


@pytest.mark.parametrize(
    ("rule", "room"),
    [
        (Rule(9), Room(images=1)),
        (Rule(9), Room(tokens=1500, image_tokens=1000)),
        (Rule(9, max_bytes=300), Room()),
    ],
)
def test_budgets_drop_the_oldest_turns_first(rule: Rule, room: Room) -> None:
    talk = [user("one", 1), bot("1"), user("two", 1), bot("2"), user("three", 1)]
    assert sent(vision(raw(talk), rule, room)) == [user("three", 1)]


def test_the_current_turn_is_sent_whatever_it_costs() -> None:
    cut = vision(raw([user("one", 3)]), Rule(0, max_bytes=1), Room(tokens=1, images=1, image_tokens=1000))
    assert sent(cut) == [user("one", 3)]
    assert cut.tokens > 3000


def test_the_turn_that_carries_the_image_outlives_those_between() -> None:
    talk = [user("look", 1), bot("1"), user("x" * 900), bot("2"), user("what colour?")]
    room = Room(tokens=1200, image_tokens=1000)
    assert sent(vision(raw(talk), Rule(1), room)) == [user("look", 1), bot("1"), user("what colour?")]


def test_a_tools_result_never_loses_its_call() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function"}]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "42"}
    talk = [user("one", 1), bot("1"), user("two", 1), call, user("wait"), result, bot("42")]
    assert sent(vision(raw(talk), Rule(0), WIDE)) == talk[2:]


def test_reasoning_keeps_the_last_turns_and_leaves_images_alone() -> None:
    talk = [SYSTEM, user("one"), bot("1"), user("two"), bot("2"), user("three")]
    assert sent(reasoning(raw(talk), Rule(1))) == [SYSTEM, *talk[3:]]
    pictures = [user("one", 1), bot("1"), user("two")]
    assert sent(reasoning(raw(pictures), Rule(0))) == pictures


RESULT = {"role": "tool", "tool_call_id": "a", "content": "1"}
MESSAGES = st.lists(
    st.one_of(
        st.builds(user, st.text(max_size=8), st.integers(0, 2)),
        st.builds(bot, st.text(max_size=8)),
        st.just(SYSTEM),
        st.just({"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}),
        st.just(RESULT),
        st.sampled_from([None, 1, "x", {"role": 1}, {"content": [1]}, []]),
    ),
    max_size=14,
)


@given(MESSAGES, st.integers(0, 4), st.integers(0, 5000), st.integers(0, 3))
def test_what_is_sent_is_in_order_unchanged_and_counted(talk: list[Any], turns: int, tokens: int, images: int) -> None:
    cut = vision(raw(talk), Rule(turns, max_bytes=tokens), Room(tokens, images, 500))
    kept = sent(cut)
    assert len(kept) + cut.dropped == len(talk)
    left = iter(talk)
    assert all(any(message == other for other in left) for message in kept)
    if talk and isinstance(talk[-1], dict):
        assert kept[-1] == talk[-1]


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(0, 3))
def test_calls_and_results_stay_together_in_any_conversation(used: list[bool], keep: int) -> None:
    talk: list[dict[str, Any]] = []
    for number, tool in enumerate(used):
        talk.append(user(str(number), 1))
        if tool:
            talk.append({"role": "assistant", "content": None, "tool_calls": [{"id": f"c{number}"}]})
            talk.append({"role": "tool", "tool_call_id": f"c{number}", "content": "1"})
        talk.append(bot(str(number)))
    kept = sent(vision(raw(talk), Rule(keep), Room(images=2)))
    asked = {call["id"] for message in kept for call in message.get("tool_calls", [])}
    answered = {message["tool_call_id"] for message in kept if message["role"] == "tool"}
    assert asked == answered
