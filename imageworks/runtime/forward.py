"""From an admitted request to the engine's answer.

Owns the wait for a model, the call, and the one retry: where nothing of the answer was seen and the process is
gone, the model is started again and the request sent once more. Every grant is given back exactly once. Does not
write to clients.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from imageworks.contract import RoleTable, Route
from imageworks.runtime.drive import Drive
from imageworks.runtime.errors import ApiError
from imageworks.runtime.events import Finish
from imageworks.runtime.journal import Journal
from imageworks.runtime.request import Request, Shaped, shape

CONNECT_S = 5.0
DEADLINE_S = 600.0
"""To the first byte of an answer, for a request by model name; a role states its own deadline."""
PIECE = 256 << 10


@dataclass(frozen=True, slots=True)
class Job:
    """A request that may be served: by which routes, best first, and how long it may take."""

    id: str
    request: Request
    routes: Mapping[str, Route]
    contract: RoleTable | None
    queue_until: float
    until: float


@dataclass(slots=True)
class Answer:
    """The engine's answer, its headers read. `failed` is set by the reader when it breaks off."""

    response: aiohttp.ClientResponse
    route: Route
    shaped: Shaped
    failed: bool = False


class Forwarder:
    """Sends jobs to models; `http` must not follow redirects, retry, or decompress."""

    def __init__(self, drive: Drive, http: aiohttp.ClientSession) -> None:
        self._drive, self._http = drive, http
        self._numbers = itertools.count()

    @asynccontextmanager
    async def answer(self, job: Job, journal: Journal) -> AsyncIterator[Answer]:
        """The answer to a job, closed and given back at the end. Raises ApiError."""
        ticket, answer = await self._open(job, journal)
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

    async def _open(self, job: Job, journal: Journal) -> tuple[str, Answer]:
        for last_try in (False, True):
            ticket = f"{job.id}#{next(self._numbers)}"
            ready = [name for name in job.routes if self._drive.state.slots[name].residency == "ready"]
            model = await self._drive.acquire(ticket, tuple(job.routes), job.queue_until)
            journal.granted, journal.warm = time.monotonic(), model in ready
            sent = False
            try:
                shaped = shape(job.request, job.routes[model], job.contract)
                journal.forwarded(job.routes[model], shaped)
                response = await self._post(job, job.routes[model], shaped)
                sent = True
                return ticket, Answer(response, job.routes[model], shaped)
            except TimeoutError:
                raise ApiError(
                    504, "deadline_exceeded", f"`{model}` did not answer in time", hint="raise the role's deadline"
                ) from None
            except (aiohttp.ClientError, OSError) as error:
                broken = error
            finally:
                if not sent:
                    self._drive.say(Finish(ticket, ok=False))
            if not await self._drive.report_dead(model) or last_try:
                break
        raise ApiError(
            502, "backend_unreachable", f"`{model}` does not answer: {broken}", hint=where_to_look(job.routes[model])
        )

    async def _post(self, job: Job, route: Route, shaped: Shaped) -> aiohttp.ClientResponse:
        left_s = max(0.1, job.until - time.monotonic())
        length = str(len(shaped.body))
        headers = {
            "Content-Type": "application/json",
            "Content-Length": length,
            "Accept-Encoding": "identity",
            "x-request-id": job.id,
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=left_s)
        url = f"{route.url}/v1/{job.request.endpoint}"
        return await self._http.post(
            url, data=_payload(shaped.body), headers=headers, timeout=timeout, allow_redirects=False
        )


def where_to_look(route: Route) -> str:
    """What a person does about a backend that fails: its log, or the server that is not ours."""
    return f"imageworks logs {route.id}" if route.program else f"it is a server of its own: {route.url}"


def _payload(body: bytes) -> bytes | AsyncIterator[bytes]:
    """A large body goes out in pieces, so that other requests are served in between; the length is still announced."""
    return body if len(body) <= PIECE else _pieces(body)


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    view = memoryview(body)
    for begin in range(0, len(body), PIECE):
        yield bytes(view[begin : begin + PIECE])
