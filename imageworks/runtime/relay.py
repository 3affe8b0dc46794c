"""An engine's answer to the client: byte for byte, unbuffered.

Owns the stream to one client: comments while the model loads, whole lines as they come, and one error event when
the engine breaks off (never a false end). After QUIET_S of waiting the headers go out with status 200, so that
clients and proxies in between do not give up; until then a failure has its own status.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

from imageworks.runtime.errors import ApiError
from imageworks.runtime.forward import Answer, where_to_look
from imageworks.runtime.journal import Journal
from imageworks.runtime.tail import Tail, facts_of

QUIET_S = 5.0
PASSED = ("Content-Type", "Content-Encoding", "Retry-After")
EVENT_STREAM = "text/event-stream"


class Stream:
    """A server-sent event stream that begins when it must. Use as a context: comments flow inside until `relay`."""

    def __init__(
        self, request: web.Request, headers: Mapping[str, str], waiting: Callable[[], str], quiet_s: float
    ) -> None:
        self._request, self._headers, self._waiting, self._quiet_s = request, dict(headers), waiting, quiet_s
        self._answered = asyncio.Event()
        self._comments: asyncio.Task[None] | None = None
        self.response: web.StreamResponse | None = None

    async def __aenter__(self) -> Self:
        self._comments = asyncio.create_task(self._comment())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end_comments()

    async def end_comments(self) -> None:
        """Let the comment that is being written end; no other follows."""
        self._answered.set()
        if self._comments is not None:
            await asyncio.gather(self._comments, return_exceptions=True)

    async def _comment(self) -> None:
        while not await _is_set(self._answered, self._quiet_s):
            stream = self.response or await self._begin(200, {"Content-Type": EVENT_STREAM})
            await stream.write(f": {self._waiting()}\n\n".encode())

    async def _begin(self, status: int, headers: Mapping[str, str]) -> web.StreamResponse:
        stream = web.StreamResponse(status=status, headers={**self._headers, **headers, "Cache-Control": "no-store"})
        await stream.prepare(self._request)
        self.response = stream
        return stream

    async def relay(self, answer: Answer, journal: Journal, headers: Mapping[str, str]) -> web.StreamResponse:
        """Pass the answer on. Raises ApiError when the engine breaks off, aiohttp's connection error when the client does."""
        await self.end_comments()
        source = answer.response
        if self.response is not None and source.status != 200:  # noqa: PLR2004 - the head is gone: the status becomes an event
            raise ApiError(502, "backend_error", (await source.read()).decode(errors="replace"))
        stream = self.response or await self._begin(source.status, {**passed(source), **headers})
        tail, held = Tail(), b""
        by_line = source.content_type == EVENT_STREAM
        try:
            async for chunk in _chunks(answer):
                journal.first_byte()
                tail.feed(chunk)
                # a torn line is held back, so that an error event never lands inside it
                cut = chunk.rfind(b"\n") + 1 if by_line else len(chunk)
                if cut:
                    await stream.write(held + chunk[:cut])
                    held = chunk[cut:]
                else:
                    held += chunk
            await stream.write(held)
        finally:
            journal.facts, journal.complete = tail.facts(), tail.ended()
        await stream.write_eof()
        return stream

    async def fail(self, error: ApiError) -> None:
        """End a begun stream with one error event."""
        if self.response is not None:
            await self.response.write(b"\n" + error.event())
            await self.response.write_eof()


async def whole(answer: Answer, journal: Journal, headers: Mapping[str, str]) -> web.Response:
    """A short answer at once. Raises ApiError when the engine breaks off."""
    parts = []
    async for chunk in _chunks(answer):
        journal.first_byte()
        parts.append(chunk)
    body = b"".join(parts)
    journal.facts = facts_of(body)
    return web.Response(body=body, status=answer.response.status, headers={**passed(answer.response), **headers})


async def _chunks(answer: Answer) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.response.content.iter_any():
            yield chunk
    except TimeoutError:
        raise ApiError(504, "deadline_exceeded", f"`{answer.route.id}` fell silent") from None
    except (aiohttp.ClientError, OSError) as error:
        message = f"`{answer.route.id}` broke off its answer: {error}"
        raise ApiError(502, "backend_error", message, hint=where_to_look(answer.route)) from None


def passed(source: aiohttp.ClientResponse) -> dict[str, str]:
    """The engine's headers that concern the client; after a server error no retry, as tokens may be spent."""
    headers = {name: source.headers[name] for name in PASSED if name in source.headers}
    return headers | ({"x-should-retry": "false"} if source.status >= 500 else {})  # noqa: PLR2004 - any server error


async def _is_set(event: asyncio.Event, within_s: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), within_s)
    except TimeoutError:
        return False
    return True
