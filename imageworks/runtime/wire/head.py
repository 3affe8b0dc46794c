"""The head of an HTTP/1 request, read strictly.

Owns `read`: a head is either one that every server understands alike, or refused with 400 and the connection closed.
Stricter than RFC 9112 asks, and than C parsers are: nothing ambiguous is ever handed on (request smuggling lives from
two servers that read one head differently). Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from imageworks.runtime.errors import ApiError
from imageworks.runtime.wire.limits import FIELDS, HEAD_BYTES, LINE_BYTES

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/(\d)\.(\d)\r\n")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)\r\n")
_FIELDS = re.compile(rb"(?:" + _TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*\r\n")
_TOKENS = re.compile(rb"(?:" + _TOKEN + rb"|\r?\Z)")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(/[^#]*)?", re.IGNORECASE)
_BAD_PATH = re.compile(
    rb"(?://|/\.{1,2}(?:/|\Z)|[\\;#]|%(?![0-9A-Fa-f]{2})|%(?:[01][0-9A-Fa-f]|2[5eEfFdD]|3[0-9]|[46][1-9A-Fa-f]|5[0-9aAcCfF]|7[0-9aAeEfF]))"
)
METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer trailers upgrade "
    b"transfer-encoding expect http2-settings".split()
)
"""Fields that concern one connection only (RFC 9110 7.6.1); they never pass, in neither direction."""


@dataclass(frozen=True, slots=True)
class Head:
    """A readable head. `target` is in origin form; `fields` are (lower-case name, value) in order, none hop-by-hop.

    `length` is None for a chunked body. `plain`: nothing about it needs more than the fast path knows.
    """

    method: bytes
    target: bytes
    minor: int
    fields: tuple[tuple[bytes, bytes], ...]
    host: str
    length: int | None
    keep_alive: bool
    awaits_continue: bool
    origin: str | None = None
    request_id: str = ""
    plain: bool = True
    authorization: str | None = None
    content_type: str | None = None
    from_page: bool = False


def read(head: bytes) -> Head:
    """Read a head that ends with an empty line. Raises ApiError 400 (or 414, 417, 431, 501, 505); close after it."""
    line = _LINE.match(head)
    if line is None:
        raise _bad("the request line is not `METHOD /path HTTP/1.1`")
    method, target, major, minor = line.groups()
    if major != b"1" or minor not in b"01":
        raise ApiError(505, "version_refused", "only HTTP/1.1 and HTTP/1.0 are spoken here")
    if len(head) > HEAD_BYTES:
        raise ApiError(431, "headers_too_large", "the headers are too long")
    if line.end() > LINE_BYTES:
        raise ApiError(414, "target_too_long", "the request line is too long")
    if _FIELDS.fullmatch(head, line.end()) is None:
        raise _bad("a header line is malformed")
    fields = [(name.lower(), value.rstrip(b" \t")) for name, value in _FIELD.findall(head, line.end())]
    if len(fields) > FIELDS or any(len(value) > LINE_BYTES for _, value in fields):
        raise ApiError(431, "headers_too_large", "the headers are too many or too long")
    return _assemble(method, target, int(minor), fields)


def early_fault(begin: bytes) -> ApiError | None:
    """What is wrong already with a head that is not whole; None where it may become one."""
    line, ended, _ = begin.partition(b"\r\n")
    if not _TOKENS.match(begin) or begin.count(b"\n") != begin.count(b"\r\n"):
        return _bad("this is no HTTP request")
    if len(line) > LINE_BYTES:
        return ApiError(414, "target_too_long", "the request line is too long")
    if len(begin) > HEAD_BYTES:
        return ApiError(431, "headers_too_large", "the headers are too long")
    if ended and not _LINE.match(begin):
        return _bad("the request line is not `METHOD /path HTTP/1.1`")
    return None


def _assemble(method: bytes, target: bytes, minor: int, fields: list[tuple[bytes, bytes]]) -> Head:
    known = _singles(fields)
    host = known.get(b"host")
    if host is None and minor:
        raise _bad("the Host header is missing")
    if host and not _HOST.fullmatch(host):
        raise _bad("the Host header is malformed")
    origin = known.get(b"origin")
    options = _options(known.get(b"connection", b""))
    dropped = HOP_BY_HOP | (options - _END_TO_END)
    passed = tuple(field for field in fields if field[0] not in dropped)
    return Head(
        method,
        _target(method, target, host or b""),
        minor,
        passed,
        (host or b"").decode("ascii"),
        _length(known, minor),
        b"close" not in options and (bool(minor) or b"keep-alive" in options),
        _awaits_continue(known, minor),
        None if origin is None else origin.decode("latin-1"),
        known.get(b"x-request-id", b"").decode("latin-1"),
        plain=bool(minor) and not _SPECIAL & known.keys(),
        content_type=None if (kind := known.get(b"content-type")) is None else kind.decode("latin-1"),
        from_page=b"sec-fetch-site" in known,
        authorization=None if (shown := known.get(b"authorization")) is None else shown.decode("latin-1"),
    )


_SINGLE = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"content-type", b"expect", b"authorization", b"origin",
     b"content-encoding", b"x-request-id", b"x-gpu-lease-token", b"x-imageworks-policies", b"x-imageworks-status")
)  # fmt: skip
_SPECIAL = frozenset((b"content-encoding", b"x-gpu-lease-token", b"x-imageworks-policies", b"x-imageworks-status"))
_END_TO_END = _SINGLE - {b"transfer-encoding", b"expect"}
"""What a client cannot make disappear by naming it in Connection."""


def _singles(fields: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Fields by name; those that steer the request may not be given twice."""
    known: dict[bytes, bytes] = {}
    for name, value in fields:
        if name not in known:
            known[name] = value
        elif name in _SINGLE:
            raise _bad(f"the header {name.decode('ascii')} is given twice")
        elif name == b"connection":
            known[name] += b"," + value
    return known


def _options(connection: bytes) -> frozenset[bytes]:
    return frozenset(option.strip() for option in connection.lower().split(b",")) if connection else frozenset()


def _target(method: bytes, target: bytes, host: bytes) -> bytes:
    if method not in METHODS:
        raise ApiError(405, "method_not_allowed", f"the method {method[:20].decode('ascii')} is not served")
    if target == b"*" and method == b"OPTIONS":
        return b"/"
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None or absolute[1].lower() != host.lower():
            raise _bad("the target is neither a path nor an address of the Host header's server")
        target = absolute[2] or b"/"
    if _BAD_PATH.search(target.partition(b"?")[0]) or b"#" in target:
        raise _bad("the path is not in its plain form")
    return target


def _length(known: dict[bytes, bytes], minor: int) -> int | None:
    coding, length = known.get(b"transfer-encoding"), known.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise _bad("both Content-Length and Transfer-Encoding are given")
        if not minor:
            raise _bad("HTTP/1.0 has no Transfer-Encoding")
        if coding.lower() != b"chunked":
            raise ApiError(501, "coding_refused", "the only Transfer-Encoding is chunked")
        return None
    if length is None:
        return 0
    if not _LENGTH.fullmatch(length):
        raise _bad("Content-Length is no number of bytes")
    return int(length)


def _awaits_continue(known: dict[bytes, bytes], minor: int) -> bool:
    expected = known.get(b"expect")
    if expected is None:
        return False
    if expected.lower() != b"100-continue":
        raise ApiError(417, "expectation_refused", "the only Expect is 100-continue")
    return bool(minor)


def _bad(message: str) -> ApiError:
    return ApiError(400, "bad_request", message)
