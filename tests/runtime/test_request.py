"""What is read from a body and what is changed in it, for any body."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.runtime.errors import ApiError
from imageworks.runtime.parameters import check
from imageworks.runtime.request import parse, shape

Make = Callable[..., Any]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text(max_size=8).filter(
    lambda name: name not in ("model", "stream", "messages", "max_tokens", "max_completion_tokens")
)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_with_400(body: bytes) -> None:
    status = 400
    try:  # anything but ApiError is a crash
        parse("chat/completions", body)
    except ApiError as error:
        status = error.status
    assert status == 400


@given(st.dictionaries(NAMES, JSON, max_size=4))
def test_values_that_the_proxy_does_not_own_arrive_unchanged(fields: dict[str, Any]) -> None:
    from imageworks.contract import Route  # noqa: PLC0415 - hypothesis takes no function fixtures

    route = Route(
        "a", "x", None, "u", "served", (), (), None, 1, 1, 0, {}, 0, 1.0, 1.0, 1.0, pinned=False, sampling={}, needs=()
    )
    request = parse("chat/completions", json.dumps(fields | {"model": "a"}).encode())
    assert json.loads(shape(request, route, None).body) == fields | {"model": "served"}


@given(st.lists(st.sampled_from(["text", "image", "both"]), max_size=5))
def test_images_of_all_messages_count(kinds: list[str]) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    text = {"type": "text", "text": "x"}
    contents = {"text": "plain", "image": [image], "both": [text, image, image]}
    messages = [{"role": "user", "content": contents[kind]} for kind in kinds]
    request = parse("chat/completions", json.dumps({"model": "a", "messages": messages}).encode())
    assert request.images == sum({"text": 0, "image": 1, "both": 2}[kind] for kind in kinds)


@pytest.mark.parametrize("key", ["image_url", "video_url", "audio_url"])
@pytest.mark.parametrize("form", ["{}", '{{"url": {}}}'])
def test_every_form_of_a_remote_address_is_refused(key: str, form: str) -> None:
    part = f'{{"type": "{key}", "{key}": {form.format(json.dumps("http://h/x"))}}}'
    body = f'{{"model": "a", "messages": [{{"role": "user", "content": [{part}]}}]}}'
    with pytest.raises(ApiError, match="media must be sent inline") as caught:
        parse("chat/completions", body.encode())
    assert caught.value.code == "remote_media_refused"


def test_an_address_hidden_behind_a_second_key_of_the_same_name_is_seen() -> None:
    part = '{"type": "image_url", "image_url": {"url": "data:x"}, "image_url": {"url": "http://h"}}'
    body = f'{{"model": "a", "messages": [], "messages": [{{"role": "user", "content": [{part}]}}]}}'
    with pytest.raises(ApiError, match="media must be sent inline"):
        parse("chat/completions", body.encode())


def test_null_is_silence_that_sampling_fills_and_zero_is_not(route: Make) -> None:
    made = route("a", sampling={"temperature": 0.5, "top_p": 0.9})
    request = parse("chat/completions", b'{"model": "a", "temperature": null, "top_p": 0}')
    sent = json.loads(shape(request, made, None).body)
    assert (sent["temperature"], sent["top_p"]) == (0.5, 0)


def test_a_models_default_bound_never_joins_a_bound_by_the_other_name(route: Make) -> None:
    asked = parse("chat/completions", b'{"model": "a", "max_completion_tokens": 900}')
    sent = json.loads(shape(asked, route("a", 1, sampling={"max_tokens": 256}), None).body)
    assert sent["max_completion_tokens"] == 900
    assert "max_tokens" not in sent


def test_a_models_smaller_default_holds_below_a_roles_bound(route: Make, role: Make) -> None:
    asked = parse("chat/completions", b'{"model": "a"}')
    sent = json.loads(shape(asked, route("a", 1, sampling={"max_tokens": 256}), role(max_tokens=512)).body)
    assert sent["max_tokens"] == 256


def _route(**more: Any) -> Any:
    from imageworks.contract import Route  # noqa: PLC0415 - as above

    return Route(
        "a",
        "x",
        None,
        "u",
        "served",
        (),
        (),
        None,
        1,
        1,
        0,
        {},
        0,
        1.0,
        1.0,
        1.0,
        pinned=False,
        sampling={"seed": 1},
        needs=(),
        **more,
    )


def _sent(model: str, route: Any, **fields: Any) -> dict[str, Any]:
    request = parse("chat/completions", json.dumps(fields | {"model": model}).encode())
    sent: dict[str, Any] = json.loads(shape(request, route, None).body)
    return sent


def test_params_of_the_stack_are_taken_out_and_put_in_whatever_the_client_sent() -> None:
    route = _route(strip=("logprobs", "seed"), set={"temperature": 0, "chat_template_kwargs": {"x": True}})
    sent = _sent("a", route, logprobs=True, seed=9, temperature=2, n=1)
    assert sent == {"model": "served", "n": 1, "seed": 1, "temperature": 0, "chat_template_kwargs": {"x": True}}


def test_a_variant_sets_its_parameters_over_those_of_the_model() -> None:
    route = _route(set={"temperature": 0}, variants={"high": {"temperature": 1, "reasoning_effort": "high"}})
    assert _sent("a:high", route)["reasoning_effort"] == "high"
    assert _sent("a:high", route)["temperature"] == 1
    assert _sent("a", route) == {"model": "served", "seed": 1, "temperature": 0}


def test_a_role_or_a_model_named_as_a_variant_asks_for_none() -> None:
    route = dataclasses.replace(_route(), aliases=("x",), variants={"high": {"reasoning_effort": "high"}})
    assert _sent("x:high", route)["reasoning_effort"] == "high"
    for name in ("role:high", "high", "b:high"):
        assert "reasoning_effort" not in _sent(name, route)


PATTERN = "data:,x" + "a*" * 20_000


@pytest.mark.parametrize(
    "field", [{"guided_regex": PATTERN}, {"stop": PATTERN}, {"response_format": {"type": "x", "json": PATTERN * 20}}]
)
def test_what_only_looks_like_media_is_judged_whole(field: dict[str, Any]) -> None:
    """Else a bound would be kept by the first letters of what it bounds."""
    picture = "data:image/png;base64," + "QUJD" * 9000
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": picture}}]}]
    request = parse("chat/completions", json.dumps({"model": "a", "messages": messages, **field}).encode())
    with pytest.raises(ApiError) as caught:
        check(request.fields)
    assert caught.value.param in field
    assert json.loads(shape(request, _route(), None).body)["messages"] == messages


@pytest.mark.parametrize("before", range(4))
def test_a_text_that_begins_as_media_does_and_is_none_is_a_text(before: int) -> None:
    text = "data:" + "x" * before + "\u65e5\u672c\u8a9e," * 7000
    body = json.dumps({"model": "a", "messages": [{"role": "user", "content": text}]}, ensure_ascii=False).encode()
    assert json.loads(shape(parse("chat/completions", body), _route(), None).body)["messages"][0]["content"] == text
