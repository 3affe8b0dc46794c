"""Heads and chunked bodies: one meaning or none."""

from __future__ import annotations

import re

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.runtime.errors import ApiError
from imageworks.runtime.wire.chunks import Chunks
from imageworks.runtime.wire.handoff import framed
from imageworks.runtime.wire.head import HOP_BY_HOP, early_fault, read

TOKEN = st.from_regex(re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}"), fullmatch=True)
VALUE = st.from_regex(re.compile(rb"[\x21-\x7e\x80-\xff]{0,20}"), fullmatch=True)
OTHER = st.lists(st.tuples(TOKEN.map(lambda name: b"x-" + name), VALUE), max_size=6)


def head(fields: list[tuple[bytes, bytes]], target: bytes = b"/v1/models") -> bytes:
    lines = [b"GET %b HTTP/1.1" % target, b"Host: localhost", *(b"%b: %b" % field for field in fields), b"", b""]
    return b"\r\n".join(lines)


class Seen:
    """What a C parser makes of a head."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.url = b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value))


@given(OTHER)
def test_what_is_read_is_what_a_c_parser_reads(fields: list[tuple[bytes, bytes]]) -> None:
    seen = Seen()
    httptools.HttpRequestParser(seen).feed_data(head(fields))
    assert list(read(head(fields)).fields) == [(name, value.rstrip(b" \t")) for name, value in seen.fields]


@given(st.binary(max_size=80), st.integers(0, 60))
def test_any_damage_is_read_or_refused(damage: bytes, place: int) -> None:
    text = head([(b"x-a", b"b")])
    data = text[:place] + damage + text[place:]
    end = data.find(b"\r\n\r\n") + 4
    try:
        found = read(data[:end])
    except ApiError as error:
        status = error.status
    else:
        status = 400
        seen = Seen()
        httptools.HttpRequestParser(seen).feed_data(data[:end])
        assert found.target == seen.url
    assert 400 <= status < 506


@given(OTHER, st.sampled_from([b"connection", b"te", b"upgrade", b"keep-alive", b"x-a", b"host"]))
def test_what_goes_to_aiohttp_is_framed_once_and_for_one_connection_only(fields: list[tuple[bytes, bytes]], named: bytes) -> None:  # fmt: skip
    again = framed(read(head([*fields, (b"connection", named), (b"upgrade", b"x")])), 7)
    seen = Seen()
    httptools.HttpRequestParser(seen).feed_data(again)
    names = [name for name, _ in seen.fields]
    assert names.count(b"content-length") == names.count(b"host") == names.count(b"connection") == 1
    assert not (HOP_BY_HOP - {b"connection"}) & set(names)
    assert named in (b"host", b"connection") or named not in names


@given(st.binary(max_size=300))
def test_a_beginning_that_is_refused_early_never_becomes_a_request(begin: bytes) -> None:
    if early_fault(begin) is not None:
        for rest in (b"\r\n\r\n", b" / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\r\nHost: localhost\r\n\r\n"):
            data = begin + rest
            with pytest.raises(ApiError):
                read(data[: data.find(b"\r\n\r\n") + 4])


@pytest.mark.parametrize("whole", [head([]), b"\r\n" + head([])[:20], b"POST", b"G", b"", b"\r"])
def test_the_beginning_of_a_good_head_is_waited_for(whole: bytes) -> None:
    for end in range(len(whole)):
        assert early_fault(whole[:end].removeprefix(b"\r\n")) is None


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.binary(max_size=20), st.integers(1, 9))
def test_chunks_come_out_as_they_went_in_however_they_are_cut(pieces: list[bytes], rest: bytes, cut: int) -> None:
    data = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nTrailer: x\r\n\r\n" + rest
    chunks = Chunks(10_000)
    for at in range(0, len(data), cut):
        if chunks.rest is None:
            chunks.feed(data[at : at + cut])
    assert bytes(chunks.payload) == b"".join(pieces)
    assert chunks.rest is not None
    assert rest.startswith(chunks.rest)


@given(st.binary(max_size=60))
def test_any_bytes_are_chunks_or_refused(data: bytes) -> None:
    chunks, status = Chunks(100), 400
    try:
        chunks.feed(data)
    except ApiError as error:
        status = error.status
    assert status in (400, 413)
    assert len(chunks.payload) <= 100


def test_a_body_in_single_bytes_is_refused_before_it_costs_much() -> None:
    chunks = Chunks(1 << 30)
    with pytest.raises(ApiError, match="more than 65536 chunks"):
        chunks.feed(b"1\r\nx\r\n" * 70_000)
