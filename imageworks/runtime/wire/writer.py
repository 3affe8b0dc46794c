"""The bytes of responses: heads, errors, chunks.

Owns what the fast path and the edge write to clients. aiohttp's handlers answer with the same fields, so a client
cannot tell the speeds apart. Pure but for the date, which the edge keeps current.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from imageworks.runtime.errors import ApiError

LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
STREAMED = b"Cache-Control: no-store\r\nTransfer-Encoding: chunked"
_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus}


def first_lines(status: int, fields: Iterable[tuple[str, str]], date: bytes) -> bytes:
    """The part of a response's head that many share: the request's id and the framing follow, then an empty line."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in fields])
    return b"%b%bDate: %b\r\n" % (_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, lines.encode("latin-1"), date)


def chunk(data: bytes) -> bytes:
    """One chunk of a stream."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def error(failed: ApiError, request_id: str, date: bytes, *, close: bool) -> bytes:
    """A whole response that says what is wrong."""
    body = failed.body()
    fields = [*failed.headers().items(), ("Content-Type", "application/json"), ("x-request-id", request_id)]
    if close:
        fields.append(("Connection", "close"))
    return b"%bContent-Length: %d\r\n\r\n%b" % (first_lines(failed.status, fields, date), len(body), body)
