"""Which parameters reach an engine: the allow-list and its bounds."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.runtime.errors import ApiError
from imageworks.runtime.parameters import DANGEROUS, check


def fields(**values: Any) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(json.dumps({"model": "a", **values}).encode(), type=dict[str, msgspec.Raw])


def refusal(values: dict[str, Any], **options: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        check(fields(**values), **options)
    return caught.value


def test_what_the_official_apis_name_passes() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    check(
        fields(
            messages=[{"role": "user", "content": "x"}], tools=[tool], tool_choice="auto", n=2, stop=["\n"], seed=-1,
            logprobs=True, top_logprobs=20, max_tokens=5, response_format={"type": "json_object"}, user="me",
            stream_options={"include_usage": True}, temperature=0.1, logit_bias={"1": 2}, metadata={}, store=False,
        )
    )  # fmt: skip


def test_what_engines_add_to_shape_an_answer_passes() -> None:
    check(fields(top_k=40, min_p=0.1, repetition_penalty=1.1, guided_choice=["a"], ignore_eos=True, stop=None, n=None))


@pytest.mark.parametrize("name", sorted(DANGEROUS))
def test_what_reaches_into_an_engine_is_refused_by_name(name: str) -> None:
    error = refusal({name: {}})
    assert (error.status, error.code, error.param) == (400, "parameter_refused", name)
    assert DANGEROUS[name] in error.message


@pytest.mark.parametrize("name", ["chat_template_kwargs", "surprise"])
def test_the_stack_may_allow_more(name: str) -> None:
    check(fields(**{name: {}}), allowed=(name,))


def test_an_unknown_name_is_refused_with_the_one_that_was_meant() -> None:
    error = refusal({"temprature": 1})
    assert error.code == "unknown_parameter"
    assert error.hint is not None
    assert error.hint.startswith("did you mean `temperature`")


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"n": 5}, "n"),
        ({"best_of": 16384}, "best_of"),
        ({"n": -1}, "n"),
        ({"n": "2"}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": 100}, "logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": "x" * 513}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"guided_regex": "(a+)+" * 1000}, "guided_regex"),
        ({"response_format": {"x": "y" * 70_000}}, "response_format"),
        ({"tools": [{"x": "y" * 70_000}]}, "tools"),
        ({"stop_token_ids": [1] * 1025}, "stop_token_ids"),
        ({"messages": [{}] * 4097}, "messages"),
    ],
)
def test_bounds_hold(values: dict[str, Any], param: str) -> None:
    assert refusal(values).param == param


def test_how_many_answers_at_once_is_the_stacks_to_say() -> None:
    check(fields(n=9), completions=9)
    assert refusal({"n": 2}, completions=1).message == "`n` is at most 1"


@given(st.text(max_size=80))
def test_any_other_name_is_refused_and_told_within_a_line(name: str) -> None:
    found = None
    try:  # anything but ApiError is a crash
        check(fields(**{name: 1}))
    except ApiError as error:
        found = error
    assert found is None or (found.status == 400 and len(found.message) < 200)
