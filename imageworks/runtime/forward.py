"""From an admitted request to the engine's answer.

Owns the wait for a model, the call, and the one retry: where nothing of the answer was seen and the process is
gone, the model is started again and the request sent once more. Every grant is given back exactly once. Does not
write to clients.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from imageworks.contract import Route
from imageworks.runtime.answer import late, unreachable
from imageworks.runtime.drive import Drive
from imageworks.runtime.events import Finish
from imageworks.runtime.job import Job
from imageworks.runtime.journal import Journal
from imageworks.runtime.keys import Keys
from imageworks.runtime.ollama.answer import Translation
from imageworks.runtime.ollama.request import PATH, wants_usage
from imageworks.runtime.request import Shaped, shape
from imageworks.runtime.toolcalls import Tools, declared

CONNECT_S = 5.0
PIECE = 256 << 10


@dataclass(slots=True)
class Answer:
    """The engine's answer, its headers read. `failed` is set by the reader when it breaks off.

    `translation` is set where the engine does not speak OpenAI's API, `tools` where calls of them that are text become calls.
    """

    response: aiohttp.ClientResponse
    route: Route
    shaped: Shaped
    keys: Keys = field(default_factory=Keys)
    translation: Translation | None = None
    tools: Tools | None = None
    failed: bool = False

    async def told(self) -> bytes:
        """The whole body of an error, as the client may see it. Raises aiohttp's errors."""
        return self.keys.without(await self.response.read(), self.route)


class Forwarder:
    """Sends jobs to models; `http` must not follow redirects, retry, or decompress."""

    def __init__(self, drive: Drive, http: aiohttp.ClientSession, keys: Keys | None = None) -> None:
        self._drive, self._http, self.keys = drive, http, keys or Keys()
        self._numbers = itertools.count()

    @asynccontextmanager
    async def answer(self, job: Job, journal: Journal, *, retried: bool = False) -> AsyncIterator[Answer]:
        """The answer to a job, closed and given back at the end; `retried`: it was sent once already. Raises ApiError."""
        ticket, answer = await self._open(job, journal, retried=retried)
        try:
            yield answer
        except BaseException:
            answer.failed = True
            raise
        finally:
            if answer.failed:
                answer.response.close()  # the engine sees the disconnect and stops
            else:
                answer.response.release()
            self._drive.say(Finish(ticket, ok=not answer.failed))

    async def _open(self, job: Job, journal: Journal, *, retried: bool) -> tuple[str, Answer]:
        for last_try in (True,) if retried else (False, True):
            ticket = f"{job.id}#{next(self._numbers)}"
            slots = self._drive.state.slots
            ready = [name for name in job.routes if name in slots and slots[name].residency == "ready"]
            urgency = job.contract.urgency if job.contract else 0
            model = await self._drive.acquire(
                ticket, tuple(job.routes), job.queue_until, priority=urgency, lease=job.lease
            )
            journal.granted, journal.warm = time.monotonic(), model in ready
            route = self._drive.route(ticket) or job.routes[model]  # a reload may have come while it waited
            sent = lapsed = False
            try:
                shaped = shape(job.request, route, job.contract)
                journal.forwarded(route, shaped)
                if lapsed := not self._drive.current(ticket):
                    raise ConnectionAbortedError("it went while the request was made ready")
                translation = _translation(job, shaped, route)
                response = await self._post(job, route, shaped)
                sent = True
                return ticket, Answer(response, route, shaped, self.keys, translation, _tools(job, route))
            except TimeoutError:
                raise late(route) from None
            except (aiohttp.ClientError, OSError) as error:
                broken = error
            finally:
                if not sent:
                    self._drive.say(Finish(ticket, ok=False))
            if last_try or not (lapsed or await self._drive.report_dead(model)):
                break
        raise unreachable(route, broken)

    async def _post(self, job: Job, route: Route, shaped: Shaped) -> aiohttp.ClientResponse:
        left_s = max(0.1, job.until - time.monotonic())
        length = str(shaped.length)
        headers = {
            "Content-Type": shaped.content_type,
            "Content-Length": length,
            "Accept-Encoding": "identity",
            "x-request-id": job.id,
            **job.passed,
            **self.keys.headers(route),
        }
        if job.request.stream:
            headers["Connection"] = (
                "close"  # llama.cpp closes after a stream whatever it says: the next request would be lost
            )
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=left_s)
        url = route.url + (PATH if shaped.native else f"/v1/{job.request.endpoint}")
        response = await self._http.post(
            url, data=_payload(shaped), headers=headers, timeout=timeout, allow_redirects=False
        )
        if response.status < 200:  # noqa: PLR2004 - an upgrade that nobody asked for
            response.close()
            raise aiohttp.ClientPayloadError(f"it answers with status {response.status}")
        return response


def _tools(job: Job, route: Route) -> Tools | None:
    chat = job.request.endpoint == "chat/completions"
    return declared(job.request.fields) if chat and route.tool_calls == "normalise" else None


def _translation(job: Job, shaped: Shaped, route: Route) -> Translation | None:
    if not shaped.native:
        return None
    usage = wants_usage(shaped.fields)
    return Translation(f"chatcmpl-{job.id}", int(time.time()), route.id, stream=job.request.stream, usage=usage)


def _payload(shaped: Shaped) -> bytes | AsyncIterator[bytes]:
    """A large body goes out in pieces, so that other requests are served in between; the length is still announced."""
    return shaped.body if shaped.length <= PIECE else _pieces(shaped)


async def _pieces(shaped: Shaped) -> AsyncIterator[bytes]:
    for piece in shaped.pieces:
        for begin in range(0, len(piece), PIECE):
            yield bytes(piece[begin : begin + PIECE])
