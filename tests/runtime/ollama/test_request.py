"""OpenAI's chat requests in Ollama's words. The cases are those of Ollama's own tests (middleware/openai_test.go) and of its
docs/api.md; where we say it otherwise than its endpoint does, the test is named for that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.runtime import parameters
from imageworks.runtime.errors import ApiError
from imageworks.runtime.ollama.request import COMPLETIONS, FIELDS, IDLE, NEUTRAL, OPTIONS, chat, obstacle

DOCS = Path(__file__).parents[3] / "docs" / "ollama.md"
HELLO = {"role": "user", "content": "Hello"}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
ARGUMENTS = {"location": "Paris, France", "format": "celsius"}
FUNCTION = {"name": "get_current_weather", "arguments": json.dumps(ARGUMENTS)}
CALLED = {"role": "assistant", "tool_calls": [{"id": "id_abc", "type": "function", "function": FUNCTION}]}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object", "properties": {"z": {"type": ["string", "null"]}, "a": {"enum": [1.50, "é"]}}}}}]  # fmt: skip


def ask(*messages: object, **fields: Any) -> dict[str, Any]:
    """What /api/chat gets."""
    found: dict[str, Any] = json.loads(chat(json.dumps({"model": "m", "messages": messages, **fields}).encode()))
    return found


def say(*messages: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(*messages)["messages"]
    return found


def test_what_nobody_said_is_the_models_own() -> None:
    assert ask(HELLO) == {"model": "m", "messages": [HELLO], "stream": False, "truncate": False}
    assert ask(HELLO, temperature=None, stop=None, tools=None, n=None, think=None) == ask(HELLO)


def test_all_options_are_told() -> None:
    said = ask(
        HELLO,
        stream=True,
        max_tokens=999,
        seed=123,
        stop=["\n", "stop"],
        temperature=3.0,
        frequency_penalty=4.0,
        presence_penalty=5.0,
        top_p=6.0,
        response_format={"type": "json_object"},
        stream_options={"include_usage": True},
    )
    assert said["options"] == {
        "num_predict": 999,
        "seed": 123,
        "stop": ["\n", "stop"],
        "temperature": 3.0,
        "frequency_penalty": 4.0,
        "presence_penalty": 5.0,
        "top_p": 6.0,
    }
    assert (said["format"], said["stream"]) == ("json", True)


def test_what_ollamas_own_endpoint_drops_is_told_too() -> None:
    said = ask(
        HELLO, max_completion_tokens=7, top_k=20, min_p=0.05, repetition_penalty=1.1, typical_p=0.9, repeat_last_n=32
    )
    assert said["options"] == {
        "num_predict": 7,
        "top_k": 20,
        "min_p": 0.05,
        "repeat_penalty": 1.1,
        "typical_p": 0.9,
        "repeat_last_n": 32,
    }


@pytest.mark.parametrize(("one", "other"), [(5, 9), (9, 5)])
def test_of_two_limits_the_lower_holds(one: int, other: int) -> None:
    assert ask(HELLO, max_tokens=one, max_completion_tokens=other)["options"] == {"num_predict": 5}


def test_one_stop_word_is_a_list_of_one() -> None:
    assert ask(HELLO, stop="x")["options"] == {"stop": ["x"]}


def test_a_conversation_is_never_cut_in_silence() -> None:
    assert ask(HELLO)["truncate"] is False


def test_text_and_image_of_one_message_stay_one_message() -> None:
    said = say(
        {"role": "user", "content": [{"type": "text", "text": "What"}, {"type": "text", "text": "is it?"}, IMAGE]}
    )
    assert said == [{"role": "user", "content": "What\nis it?", "images": [PNG]}]


def test_an_image_that_the_proxy_will_fetch_is_no_obstacle() -> None:
    content = [{"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}]
    asked = {"model": "m", "messages": [{"role": "user", "content": content}]}
    assert obstacle("chat/completions", asked) is None


def test_no_messages_are_refused_where_ollama_would_only_load() -> None:
    with pytest.raises(ApiError, match="no messages"):
        ask()


def test_images_between_texts_keep_their_order_as_messages_of_their_own() -> None:
    said = say(
        {"role": "user", "content": [{"type": "text", "text": "A"}, IMAGE, {"type": "text", "text": "B"}, IMAGE]}
    )
    user = {"role": "user"}
    assert said == [
        {**user, "content": "A"},
        {**user, "content": "", "images": [PNG]},
        {**user, "content": "B"},
        {**user, "content": "", "images": [PNG]},
    ]


def test_sound_goes_where_ollama_expects_it() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    assert say({"role": "user", "content": [part]}) == [{"role": "user", "content": "", "images": ["UklGRg=="]}]


def test_a_call_has_its_arguments_as_an_object() -> None:
    call = {"id": "id_abc", "function": {"name": "get_current_weather", "arguments": ARGUMENTS}}
    assert say(CALLED) == [{"role": "assistant", "content": "", "tool_calls": [call]}]
    assert say({**CALLED, "content": "Let's see", "reasoning": "hm"}) == [
        {"role": "assistant", "content": "Let's see", "thinking": "hm", "tool_calls": [call]}
    ]


def test_an_answer_of_a_tool_says_whose_it_is() -> None:
    answer = {"role": "tool", "content": "20 degrees"}
    by_id = {**answer, "tool_call_id": "id_abc"}
    assert say(CALLED, by_id)[-1] == {**answer, "tool_name": "get_current_weather", "tool_call_id": "id_abc"}
    assert say({**answer, "name": "f"}) == [{**answer, "tool_name": "f"}]


def test_the_developer_is_the_system() -> None:
    assert say({"role": "developer", "content": "x"}) == [{"role": "system", "content": "x"}]


def test_tools_and_schemas_stay_as_they_were() -> None:
    schema = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "number", "maximum": 1e300}}}
    body = json.dumps(
        {
            "model": "m",
            "messages": [HELLO],
            "tools": TOOLS,
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}},
        }
    ).encode()
    assert json.dumps(TOOLS).encode() in chat(body)
    assert json.dumps(schema).encode() in chat(body)


def test_no_tools_are_shown_where_none_may_be_called() -> None:
    assert "tools" not in ask(HELLO, tools=TOOLS, tool_choice="none")
    assert ask(HELLO, tools=TOOLS, tool_choice="auto")["tools"] == TOOLS


@pytest.mark.parametrize(
    ("fields", "think"),
    [
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, "low"),
        ({"reasoning_effort": "medium"}, "medium"),
        ({"reasoning_effort": "xhigh"}, "max"),
        ({"reasoning": {"effort": "high"}, "reasoning_effort": "low"}, "high"),
        ({"think": False, "reasoning_effort": "low"}, False),
        ({"reasoning": {"effort": None}}, None),
    ],
)
def test_effort_is_thinking(fields: dict[str, Any], think: object) -> None:
    assert ask(HELLO, **fields).get("think") == think


def test_probabilities_are_asked_for() -> None:
    said = ask(HELLO, logprobs=True, top_logprobs=3)
    assert (said["logprobs"], said["top_logprobs"]) == (True, 3)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"guided_regex": "a+"}, "guided_regex"),
        ({"options": {"num_ctx": 9}}, "options"),
        ({"keep_alive": 0}, "keep_alive"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"reasoning_effort": "some"}, "reasoning_effort"),
        ({"max_tokens": "many"}, "max_tokens"),
    ],
)
def test_what_ollama_cannot_be_told_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refusal:
        ask(HELLO, **fields)
    assert (refusal.value.status, refusal.value.param) == (400, param)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "file", "file": {}}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://example.org/x.png"}}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": "file:/etc/passwd;base64,AAAA"}]},
        {"role": "user", "content": [{"type": "text"}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"a":'}}]},
        {"content": "nobody"},
        7,
    ],
)
def test_a_message_that_has_no_place_is_refused(message: object) -> None:
    with pytest.raises(ApiError) as refusal:
        say(message)
    assert (refusal.value.status, refusal.value.param) == (400, "messages")
    found = obstacle("chat/completions", {"model": "m", "messages": [message]})
    assert found is not None
    assert found.param == "messages"


@pytest.mark.parametrize(("name", "values"), NEUTRAL.items())
def test_what_changes_nothing_is_left_out(name: str, values: tuple[object, ...]) -> None:
    for value in (*values, None):
        assert obstacle("completions", {name: value}) is None
        assert ask(HELLO, **{name: value}) == ask(HELLO)


def test_every_name_of_the_tables_is_one_that_clients_may_send() -> None:
    for name in (*OPTIONS, *FIELDS, *COMPLETIONS, *IDLE, *NEUTRAL):
        parameters.check({name: b"null"})  # type: ignore[dict-item]


def test_the_documentation_names_them_all() -> None:
    text = DOCS.read_text()
    for name in (*OPTIONS, *FIELDS, *COMPLETIONS, *IDLE, *NEUTRAL):
        assert f"`{name}`" in text, name


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text() | st.integers(-(2**53), 2**53) | st.booleans()))
def test_texts_and_arguments_arrive_as_they_were(text: str, thought: str, arguments: dict[str, Any]) -> None:
    call = {"function": {"name": text, "arguments": json.dumps(arguments)}}
    message = {"role": "assistant", "content": text, "reasoning": thought, "tool_calls": [call]}
    found = say(message)[0]
    assert (found["content"], found.get("thinking", "")) == (text, thought)
    assert found["tool_calls"] == [{"function": {"name": text, "arguments": arguments}}]
