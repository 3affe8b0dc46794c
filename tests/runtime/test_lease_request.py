"""What a client asks of the leases is read strictly: a defined answer for every bad body, in bounded time."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.runtime.errors import ApiError
from imageworks.runtime.lease_request import (
    MOST_MIB,
    AcquireBody,
    ask,
    mib_of,
    read,
    shown_token,
)
from imageworks.runtime.leases import Holder, LeaseAsk

UUIDS = {0: "GPU-a", 1: "GPU-b"}


def asked(**fields: object) -> LeaseAsk:
    body = read(AcquireBody, json.dumps({"owner": "me", **fields}).encode())
    return ask(body, UUIDS, 60.0, "made-up")


def test_a_short_body_gets_the_defaults() -> None:
    assert asked(vram="6GiB") == LeaseAsk(request="made-up", owner="me", mib=6144, ttl_s=60.0)


def test_every_field_is_taken_over() -> None:
    body = read(
        AcquireBody,
        b'{"vram_mib": 100, "gpus": ["GPU-b", 0, 1], "exclusive": true, "owner": "o", "reason": "why",'
        b' "priority": -3, "ttl_s": 7, "wait_s": 2.5, "request_id": "r", "pid": 5}',
    )
    assert (body.wait_s, body.pid) == (2.5, 5)
    assert ask(body, UUIDS, 60.0, "made-up", Holder(5, 6)) == LeaseAsk(
        "r", "o", 100, count=2, gpus=(1, 0), exclusive=True, priority=-3, ttl_s=7, reason="why", holder=Holder(5, 6)
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"\xff\xfe",
        b'{"owner": "a", "vram_mib": NaN}',
        b'{"owner": "a", "vram_mib": Infinity}',
        b'{"owner": "a", "vram_mib": 1e999}',
        b'{"owner": "a", "vram_mib": 1' + b"0" * 5000 + b"}",
        b'{"owner": "a", "vram_mib": 0}',
        b'{"owner": "a", "vram_mib": -1}',
        b'{"owner": "a", "vram_mib": 1.5}',
        b'{"owner": "a", "vram_mib": true}',
        b'{"owner": "a", "vram_mib": "6"}',
        b'{"owner": "a", "vram_mib": %d}' % (MOST_MIB + 1),
        b'{"owner": "", "vram_mib": 1}',
        b'{"owner": "%s", "vram_mib": 1}' % (b"x" * 201),
        b'{"vram_mib": 1}',
        b'{"owner": "a", "vram_mib": 1, "surprise": 1}',
        b'{"owner": "a", "vram_mib": 1, "ttl_s": 0}',
        b'{"owner": "a", "vram_mib": 1, "ttl_s": -1}',
        b'{"owner": "a", "vram_mib": 1, "ttl_s": 1e6}',
        b'{"owner": "a", "vram_mib": 1, "wait_s": NaN}',
        b'{"owner": "a", "vram_mib": 1, "priority": 101}',
        b'{"owner": "a", "vram_mib": 1, "count": 0}',
        b'{"owner": "a", "vram_mib": 1, "pid": 0}',
        b'{"owner": "a", "vram_mib": 1, "gpus": [null]}',
        b'{"owner": "a", "vram_mib": 1, "gpus": [true]}',
        b'{"owner": "\\ud800", "vram_mib": 1}',
    ],
)
def test_a_body_that_makes_no_sense_is_a_400(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        read(AcquireBody, body)
    assert caught.value.status == 400
    assert "body" in caught.value.message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "exactly one of"),
        ({"vram": "6GiB", "vram_mib": 6144}, "exactly one of"),
        ({"vram": "six"}, "`six` is no size of memory; write it like 6GiB"),
        ({"vram": "0GiB"}, "no size"),
        ({"vram": "-1GiB"}, "no size"),
        ({"vram": "6"}, "no size"),
        ({"vram": "999999999TiB"}, "no size"),
        ({"vram_mib": 1, "gpus": [2]}, "no GPU 2 in this plan; there is: 0 (GPU-a), 1 (GPU-b)"),
        ({"vram_mib": 1, "gpus": ["GPU-c"]}, "no GPU GPU-c"),
        ({"vram_mib": 1, "gpus": [-1]}, "no GPU -1"),
        ({"vram_mib": 1, "gpus": [0, 1], "count": 1}, "count is 1, but 2 GPUs are named"),
    ],
)
def test_what_reads_well_but_means_nothing_is_said(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ApiError) as caught:
        asked(**fields)
    assert caught.value.status == 400
    assert said in caught.value.message


@given(data=st.binary(max_size=300))
def test_any_bytes_are_an_ask_or_a_400(data: bytes) -> None:
    try:
        read(AcquireBody, data)
    except ApiError as error:
        assert error.status == 400  # noqa: PT017 - both outcomes are right, a crash is not


@given(st.integers(1, MOST_MIB))
def test_a_size_in_its_own_unit_is_itself(mib: int) -> None:
    assert mib_of(f"{mib}MiB") == mib
    assert mib_of(f"{mib}GiB" if mib <= MOST_MIB // 1024 else "1GiB") == (
        mib * 1024 if mib <= MOST_MIB // 1024 else 1024
    )


def test_a_fraction_is_rounded_up_never_down() -> None:
    assert (mib_of("1.5GiB"), mib_of("1KB"), mib_of("10 GB")) == (1536, 1, 9537)


@pytest.mark.parametrize(
    ("header", "shown"),
    [(None, None), ("a:1", ("a", 1)), (" l-1:0 ", ("l-1", 0)), ("a:b:3", ("a:b", 3))],
)
def test_the_token_header_names_lease_and_token(header: str | None, shown: tuple[str, int] | None) -> None:
    assert shown_token(header) == shown


@pytest.mark.parametrize("header", ["", "a", "a:", ":1", "a:-1", "a:1.5", "a:٣", "a:" + "9" * 17, "x" * 400 + ":1"])
def test_a_forged_header_is_a_400(header: str) -> None:
    with pytest.raises(ApiError) as caught:
        shown_token(header)
    assert caught.value.status == 400
