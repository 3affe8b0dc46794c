"""Inline media, left out and put back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.runtime.elide import FROM_BYTES, elide
from imageworks.runtime.request import parse, shape

LONG = "data:image/png;base64," + "QUJD" * 6000
TEXTS = st.sampled_from([LONG, LONG + "=", "plain", 'quote " inside', "back\\slash", "\u00e9" * 3000, '"data:', '\\"data:x', "~elided.0~0000", "data:" + "a\\" * 9000, "data:," + "\n" * 9000])  # fmt: skip
JSON = st.recursive(TEXTS | st.integers(), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6)  # fmt: skip


@given(st.dictionaries(TEXTS, JSON, max_size=5), st.booleans())
def test_what_is_left_out_changes_nothing_else_and_comes_back(value: dict[str, Any], ascii_only: bool) -> None:  # noqa: FBT001 - hypothesis
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    elided = elide(body)
    if elided is None:
        assert len(body) < FROM_BYTES or LONG not in body.decode()
        return
    assert b"".join(elided.restore(elided.skeleton)) == body
    assert len(elided.skeleton) + sum(map(len, elided.parts)) >= len(body)
    shown = json.loads(elided.skeleton)
    assert len(shown) == len(value)  # the same structure
    again = b"".join(
        elided.restore(msgspec.json.encode(msgspec.json.decode(elided.skeleton, type=dict[str, msgspec.Raw])))
    )
    assert json.loads(again) == value


@given(st.binary(max_size=40), st.integers(0, 200))
def test_a_body_that_is_no_json_is_none_without_its_media_either(damage: bytes, place: int) -> None:
    body = json.dumps({"a": [LONG, 1], "b": {"c": LONG}}).encode()
    body = body[:place] + damage + body[place:]
    elided = elide(body)
    if elided is not None and all(
        bytes(part).isascii() and bytes(part).decode().isprintable() for part in elided.parts
    ):
        assert _reads(body) == _reads(elided.skeleton)


def _reads(text: bytes) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return True


def test_media_of_a_field_that_is_given_twice_goes_with_it() -> None:
    from imageworks.contract import Route  # noqa: PLC0415 - as in test_request

    route = Route("a", "x", None, "u", "served", (), (), None, 1, 1, 0, {}, 0, 1.0, 1.0, 1.0, pinned=False, sampling={}, needs=())  # fmt: skip
    first, second = LONG.replace("QUJD", "AAAA"), LONG
    body = f'{{"model":"a","x":"{first}","x":"{second}"}}'.encode()
    request = parse("chat/completions", bytearray(body))
    shaped = shape(request, route, None)
    assert json.loads(shaped.body) == {"model": "served", "x": second}
    assert shaped.length == len(shaped.body)


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_large_image_is_neither_copied_nor_parsed(kind: Any) -> None:
    body: Any = kind(
        json.dumps(
            {"model": "a", "messages": [{"content": [{"image_url": {"url": "data:," + "A" * 1_000_000}}]}]}
        ).encode()
    )
    media: Any = body
    elided = elide(media)
    assert elided is not None
    assert len(elided.skeleton) < 500
    owner: object = elided.parts[0].obj
    assert owner is body
    image = parse("chat/completions", media)
    assert image.images == 1
