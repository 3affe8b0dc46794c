"""The OpenAI-compatible endpoints that cost tokens.

Owns the handlers of POST /v1/chat/completions, /v1/completions and /v1/embeddings: read, resolve, admit, wait,
pass on, record. Judgement is in `table`, `admission` and `request`; waiting in `forward`; bytes in `relay`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping

import aiohttp
from aiohttp import web

from imageworks.contract import Need, Route, expand
from imageworks.runtime.admission import admit
from imageworks.runtime.drive import Drive
from imageworks.runtime.errors import ApiError
from imageworks.runtime.forward import DEADLINE_S, Answer, Forwarder, Job
from imageworks.runtime.guard import REQUEST_ID, too_large
from imageworks.runtime.journal import Journal
from imageworks.runtime.records import Outcome, RecordLog
from imageworks.runtime.relay import QUIET_S, Stream, whole
from imageworks.runtime.request import Endpoint, Request, parse
from imageworks.runtime.table import Resolution, resolve


class Proxy:
    """The serving side of one routing table. `tokens` expand the paths of needs; `ending`: SIGTERM was received."""

    def __init__(
        self,
        drive: Drive,
        http: aiohttp.ClientSession,
        records: RecordLog,
        tokens: Mapping[str, str],
        *,
        quiet_s: float = QUIET_S,
    ) -> None:
        self.table, self.drive, self.ending = drive.table, drive, False
        self.active: set[asyncio.Task[object]] = set()
        self._forwarder = Forwarder(drive, http)
        self._records, self._tokens, self._quiet_s = records, tokens, quiet_s

    def endpoint(self, name: Endpoint) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The handler of one endpoint."""

        async def handle(request: web.Request) -> web.StreamResponse:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - a handler always runs in a task
            self.active.add(task)
            try:
                return await self._serve(name, request)
            finally:
                self.active.discard(task)

        return handle

    async def _serve(self, endpoint: Endpoint, http: web.Request) -> web.StreamResponse:
        journal = Journal(http[REQUEST_ID])
        try:
            request = parse(endpoint, await self._body(http))
            journal.asked(request)
            job = self._job(request, journal)
            response = await (self._stream(http, job, journal) if request.stream else self._short(job, journal))
        except ApiError as error:
            self._record(journal, error)
            raise
        except (asyncio.CancelledError, ConnectionError):
            self._record(journal, None, None if journal.complete else "refused" if self.ending else "client_abort")
            raise
        return response

    async def _body(self, http: web.Request) -> bytes:
        if self.ending:
            raise ApiError(503, "shutting_down", "the proxy is stopping", retry=True, retry_after_s=1.0)
        if (http.content_length or 0) > self.table.proxy.body_limit_bytes:
            raise too_large(http.content_length)
        if http.headers.get("Content-Encoding", "identity") != "identity":
            raise ApiError(415, "encoding_refused", "compressed bodies are not taken")
        return await http.read()

    def _job(self, request: Request, journal: Journal) -> Job:
        resolution = resolve(self.table, request.model)
        journal.resolved(resolution)
        routes = admit(self.table, resolution, request, self.missing)
        until = journal.begin + (
            resolution.contract.deadline_s if resolution.contract else self._patience_s(resolution)
        )
        queue_until = min(until, journal.begin + self.table.proxy.queue_wait_s)
        return Job(
            journal.record_id, request, {route.id: route for route in routes}, resolution.contract, queue_until, until
        )

    def _patience_s(self, resolution: Resolution) -> float:
        return DEADLINE_S + max(route.start_timeout_s for route in resolution.routes)

    def missing(self, route: Route) -> tuple[Need, ...]:
        """Needs of a route that are not on the disk; a model that runs needs nothing more."""
        if self.drive.state.slots[route.id].residency == "ready":
            return ()
        needs = (Need(expand(need.path, self._tokens), need.hint) for need in route.needs)
        return tuple(need for need in needs if not os.path.exists(need.path))  # noqa: PTH110 - half the cost of Path on the hot path

    async def _short(self, job: Job, journal: Journal) -> web.Response:
        async with self._forwarder.answer(job, journal) as answer:
            response = await whole(answer, journal, _headers(answer))
        self._note(journal, answer)
        return response

    async def _stream(self, http: web.Request, job: Job, journal: Journal) -> web.StreamResponse:
        async with Stream(http, {"x-request-id": job.id}, lambda: self._waiting(job), self._quiet_s) as stream:
            try:
                async with self._forwarder.answer(job, journal) as answer:
                    response = await stream.relay(answer, journal, _headers(answer))
                self._note(journal, answer)
            except ApiError as error:
                await stream.end_comments()
                if stream.response is None:
                    raise
                self._record(journal, error)
                await stream.fail(error)
                return stream.response
            except asyncio.CancelledError:
                if self.ending:
                    await stream.fail(ApiError(503, "shutting_down", "the proxy was stopped"))
                raise
        return response

    def _note(self, journal: Journal, answer: Answer) -> None:
        status = answer.response.status
        error = ApiError(status, "backend_error", "") if status >= 400 else None  # noqa: PLR2004 - any error the engine answers
        self._record(journal, error)

    def _record(self, journal: Journal, error: ApiError | None, outcome: Outcome | None = None) -> None:
        """Write the line of a request, once: a client that hangs up after the last byte changes nothing any more."""
        if not journal.recorded:
            journal.recorded = True
            self._records.write(journal.record(self.table, error, outcome))

    def _waiting(self, job: Job) -> str:
        model = next(iter(job.routes))
        slot = self.drive.state.slots[model]
        return f"waiting for {model} ({slot.residency}), {int(job.queue_until - time.monotonic())} s at most"


def _headers(answer: Answer) -> dict[str, str]:
    headers = {"x-imageworks-model": answer.route.id}
    return headers | ({"x-imageworks-clamped": answer.shaped.clamped} if answer.shaped.clamped else {})
