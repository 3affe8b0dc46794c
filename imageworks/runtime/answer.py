"""An engine's answer as the client gets it, whichever way it comes.

Owns which of the engine's headers pass, where a stream may be cut so that an error event never lands inside a line, and
what is said of an engine that is late, silent, gone or broke off. Pure; both speeds of the proxy ask here.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

from imageworks.contract import Route
from imageworks.runtime.errors import ApiError
from imageworks.runtime.request import Shaped

EVENT_STREAM = "text/event-stream"
PASSED = ("Content-Type", "Content-Encoding", "Retry-After")
HELD_BYTES = 64 << 10
"""A longer line passes in pieces: an event of megabytes is not waited for."""
CLOSED = "the connection was closed"
_WORDS = {errno.ECONNREFUSED: "nothing listens there", errno.ECONNRESET: CLOSED, errno.EPIPE: CLOSED}
_SERVER_FAULT = 500
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class Lines:
    """What of a stream may be written now: whole lines where `by_line`, else everything."""

    __slots__ = ("_by_line", "_held", "_torn")

    def __init__(self, *, by_line: bool) -> None:
        self._by_line, self._held, self._torn = by_line, b"", False

    def feed(self, data: bytes) -> bytes:
        """Take a piece, give what may pass."""
        if not self._by_line:
            return data
        if not self._held and data[-1:] == b"\n":
            self._torn = False
            return data
        data = self._held + data
        cut = data.rfind(b"\n") + 1
        if not cut and len(data) > HELD_BYTES:
            cut = len(data)
        self._held = data[cut:]
        if cut:
            self._torn = data[cut - 1 : cut] != b"\n"
        return data[:cut]

    def rest(self) -> bytes:
        """The stream is over: the line that nothing ended."""
        held, self._held = self._held, b""
        return held

    def failure(self, error: ApiError, *, anthropic: bool = False) -> bytes:
        """The event that ends a stream whose engine failed; the torn line is dropped."""
        return (b"\n\n" if self._torn else b"\n") + error.event(anthropic=anthropic)


def is_events(content_type: str) -> bool:
    """Is it a stream of server-sent events?"""
    return content_type.partition(";")[0].strip().lower() == EVENT_STREAM


def headers(
    status: int, fields: Mapping[str, str], route: Route, shaped: Shaped, told: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What the client learns: the engine's headers that concern it, and ours. `fields` may be asked in lower case.

    `told` says what was changed on the way. After a server error no retry is asked for, as tokens may be spent.
    """
    found = {name: value for name in PASSED if (value := fields.get(name.lower())) is not None}
    if status >= _SERVER_FAULT:
        found["x-should-retry"] = "false"
    found["x-imageworks-model"] = route.id
    if shaped.clamped:
        found["x-imageworks-clamped"] = shaped.clamped
    if told:
        found |= told
    return found


def where_to_look(route: Route) -> str:
    """What a person does about a backend that fails: its log, or the server that is not ours."""
    return f"imageworks logs {route.id}" if route.program else f"it is a server of its own: {route.url}"


def late(route: Route) -> ApiError:
    """Nothing came within the deadline."""
    return ApiError(504, "deadline_exceeded", f"`{route.id}` did not answer in time", hint="raise the role's deadline")


def silent(route: Route) -> ApiError:
    """The answer stopped."""
    return ApiError(504, "deadline_exceeded", f"`{route.id}` fell silent")


def unreachable(route: Route, reason: object) -> ApiError:
    """No answer began; where that is because this process has reached a limit of its own, a later try is better."""
    if getattr(reason, "errno", None) in EXHAUSTED:
        message = "the proxy has reached a limit of the system (file descriptors, memory)"
        return ApiError(503, "overloaded", message, retry=True, retry_after_s=1.0)
    return ApiError(
        502, "backend_unreachable", f"`{route.id}` does not answer: {in_words(reason)}", hint=where_to_look(route)
    )


def broke_off(route: Route, reason: object) -> ApiError:
    """The answer is not whole."""
    return ApiError(
        502, "backend_error", f"`{route.id}` broke off its answer: {in_words(reason)}", hint=where_to_look(route)
    )


def in_words(reason: object) -> str:
    """What became of a connection, without what the HTTP client and asyncio say of themselves around it."""
    if isinstance(reason, OSError) and reason.errno in _WORDS:
        return _WORDS[reason.errno]
    text = str(reason) or type(reason).__name__
    return CLOSED if text.startswith("Response payload is not completed") else text
