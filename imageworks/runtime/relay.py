"""An engine's answer to the client: byte for byte, unbuffered; only what is no OpenAI API is translated.

Owns the stream to one client: word of the queue while the model loads, whole lines as they come, and one error event when
the engine breaks off (never a false end). After QUIET_S of waiting the headers go out with status 200, so that
clients and proxies in between do not give up; until then a failure has its own status.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Self

from aiohttp import web

from imageworks.runtime.answer import EVENT_STREAM, Lines, broke_off, silent
from imageworks.runtime.errors import ApiError
from imageworks.runtime.forward import Answer
from imageworks.runtime.journal import Journal
from imageworks.runtime.ollama.answer import error as translated_error
from imageworks.runtime.tail import Tail
from imageworks.runtime.toolcalls import Normaliser
from imageworks.runtime.toolcalls import whole as normalised

QUIET_S = 5.0


class Stream:
    """A server-sent event stream that begins when it must. Use as a context: comments flow inside until `relay`."""

    def __init__(
        self, request: web.Request, headers: Mapping[str, str], waiting: Callable[[], bytes], quiet_s: float
    ) -> None:
        self._request, self._headers, self._waiting, self._quiet_s = request, dict(headers), waiting, quiet_s
        self._answered = asyncio.Event()
        self._comments: asyncio.Task[None] | None = None
        self._lines = Lines(by_line=True)
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
            await stream.write(self._waiting())

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
            raise ApiError(502, "backend_error", (await answer.told()).decode(errors="replace"))
        stream = self.response or await self._begin(source.status, headers)
        tail, self._lines = Tail(), Lines(by_line=source.content_type == EVENT_STREAM)
        try:
            async for chunk in _normalised(answer, journal):
                journal.first_byte()
                tail.feed(chunk)
                if piece := self._lines.feed(chunk):
                    await stream.write(piece)
            if answer.translation is not None:
                tail.count(answer.translation.counts)
            await stream.write(self._lines.rest())
        finally:
            journal.answer, journal.complete = tail, tail.ended()
        await stream.write_eof()
        return stream

    async def fail(self, error: ApiError, *, anthropic: bool = False) -> None:
        """End a begun stream with one error event."""
        if self.response is not None:
            await self.response.write(self._lines.failure(error, anthropic=anthropic))
            await self.response.write_eof()


async def whole(answer: Answer, journal: Journal, headers: Mapping[str, str]) -> web.Response:
    """A short answer at once. Raises ApiError when the engine breaks off."""
    parts = []
    async for chunk in _chunks(answer):
        journal.first_byte()
        parts.append(chunk)
    body = b"".join(parts)
    if answer.tools is not None:
        body, journal.tool_calls = normalised(body, answer.tools, journal.record_id)
    journal.answer = body
    return web.Response(body=body, status=answer.response.status, headers=headers)


async def _normalised(answer: Answer, journal: Journal) -> AsyncIterator[bytes]:
    """The pieces of a stream, with calls that were text; what is held back of a stream that breaks off still passes."""
    if answer.tools is None:
        async for chunk in _chunks(answer):
            yield chunk
        return
    stream = Normaliser(answer.tools, journal.record_id)
    try:
        async for chunk in _chunks(answer):
            yield stream.feed(chunk)
            journal.tool_calls = stream.count
    except ApiError:
        yield stream.end()
        raise
    yield stream.end()


async def _chunks(answer: Answer) -> AsyncIterator[bytes]:
    try:
        if answer.response.status >= 400:  # noqa: PLR2004 - any error: short, and some quote the key they were given
            told = await answer.told()
            yield told if answer.translation is None else translated_error(answer.response.status, told)
            return
        async for chunk in answer.response.content.iter_any():
            for piece in (chunk,) if answer.translation is None else answer.translation.feed(chunk):
                yield piece
        for piece in () if answer.translation is None else answer.translation.end():
            yield piece
    except TimeoutError:
        raise silent(answer.route) from None
    except Exception as error:  # aiohttp's parser raises more than it names
        raise broke_off(answer.route, error) from None


async def _is_set(event: asyncio.Event, within_s: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), within_s)
    except TimeoutError:
        return False
    return True
