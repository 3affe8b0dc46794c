"""The OpenAI-compatible endpoints that cost tokens.

Owns the handlers of `endpoints.ENDPOINTS`: read, resolve, admit, wait, pass on, record. Judgement is in `table`,
`admission` and `request`; waiting in `forward`; bytes in `relay`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import aiohttp
import msgspec
from aiohttp import web

from imageworks.contract import ImageRule, Need, Route, RouteTable, expand
from imageworks.runtime import queueing, toolcalls
from imageworks.runtime.admission import able, check_images, here, told
from imageworks.runtime.answer import headers
from imageworks.runtime.clients import Client, Clients, today
from imageworks.runtime.conversation import HEADER, Switches, Wish, cut, fetched, has_large_images, shrunk, wish
from imageworks.runtime.delta import LastReload
from imageworks.runtime.drive import Drive
from imageworks.runtime.endpoints import ENDPOINTS, Endpoint
from imageworks.runtime.errors import ApiError, too_large
from imageworks.runtime.forward import Answer, Forwarder
from imageworks.runtime.guard import CLIENT, REQUEST_ID
from imageworks.runtime.history import Cut, Room
from imageworks.runtime.job import DEADLINE_S, Chosen, Job
from imageworks.runtime.journal import Journal
from imageworks.runtime.keys import Keys
from imageworks.runtime.lease_request import TOKEN_HEADER, shown_token
from imageworks.runtime.parameters import check as check_parameters
from imageworks.runtime.parameters import check_video
from imageworks.runtime.queueing import Waiting, wants_events
from imageworks.runtime.records import Outcome, RecordLog
from imageworks.runtime.relay import QUIET_S, Stream, whole
from imageworks.runtime.remote import Fetcher
from imageworks.runtime.request import Request, max_tokens, parse
from imageworks.runtime.shrink import Shrinker
from imageworks.runtime.snapshot import position
from imageworks.runtime.table import resolve
from imageworks.runtime.watch import Watch

FAST: tuple[Endpoint, ...] = ("chat/completions", "completions", "embeddings")


class Working(Protocol):
    """A request that is served: a task, or an exchange of the fast path."""

    def cancel(self) -> object:
        """End it; the client is told where that can be."""


class Proxy:
    """The serving side of one routing table. `tokens` expand the paths of needs; `ending`: SIGTERM was received.

    `followers` are called after another table came into force.
    """

    def __init__(
        self,
        drive: Drive,
        http: aiohttp.ClientSession,
        records: RecordLog,
        tokens: Mapping[str, str],
        *,
        quiet_s: float = QUIET_S,
        keys: Keys | None = None,
        watch: Watch | None = None,
        clients: Clients | None = None,
        switches: Switches | None = None,
    ) -> None:
        self.table, self.drive, self.ending = drive.table, drive, False
        self.watch = watch
        self.clients, self.switches, self.shrinker = clients or Clients(), switches or Switches(), Shrinker()
        self.fetcher = Fetcher()
        self.last_reload = LastReload()
        self.followers: list[Callable[[], None]] = []
        self.active: set[Working] = set()
        self._quiet: asyncio.Event = asyncio.Event()
        self._chosen: dict[tuple[Endpoint, str], Chosen] = {}
        self._keys = keys or Keys()
        self._forwarder = Forwarder(drive, http, self._keys)
        self._records, self._tokens, self._quiet_s = records, tokens, quiet_s

    def use(self, table: RouteTable, keys: Keys, clients: Clients) -> None:
        """Another table is in force. What was judged by the old one and waits goes on; it is granted by the new one."""
        self.clients.use(clients)
        self.table, self._keys, self._forwarder.keys = table, keys, keys
        self._chosen.clear()
        for follow in self.followers:
            follow()

    def endpoint(self, name: Endpoint) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The handler of one endpoint."""

        async def handle(request: web.Request) -> web.StreamResponse:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - a handler always runs in a task
            self.enter(task)
            try:
                return await self._serve(name, request)
            finally:
                self.leave(task)

        return handle

    def enter(self, work: Working) -> None:
        """A request is served from now."""
        self.active.add(work)

    def leave(self, work: Working) -> None:
        """A request is over."""
        self.active.discard(work)
        if self.ending and not self.active:
            self._quiet.set()

    async def quiet(self) -> None:
        """Return when no request is served any more; only after `ending` is set."""
        if self.active:
            self._quiet.clear()
            await self._quiet.wait()

    async def _serve(self, endpoint: Endpoint, http: web.Request) -> web.StreamResponse:
        journal = Journal(http[REQUEST_ID])
        try:
            with self._told_of_the_end(http):
                return await self._answered(endpoint, http, journal)
        except ApiError as error:
            self.record(journal, error)
            raise
        except (asyncio.CancelledError, ConnectionError):
            self.record(journal, None, None if journal.complete else "refused" if self.ending else "client_abort")
            raise
        except Exception:  # a bug; its place is given back and its record written all the same
            self.record(journal, ApiError(500, "internal_error", ""))
            raise

    async def _answered(self, endpoint: Endpoint, http: web.Request, journal: Journal) -> web.StreamResponse:
        kind, remote = http.headers.get("Content-Type", ""), self.table.proxy.remote_images != ()
        request = parse(endpoint, await self._body(http), kind, remote=remote)
        job = self.job(request, journal, http.get(CLIENT), wish(http.headers.get(HEADER)))
        self.begin(journal, http.get(CLIENT))
        job = await self._shrunk(await self._fetched(job), journal)
        lease = shown_token(http.headers.get(TOKEN_HEADER))
        events = wants_events(http.headers.get(queueing.HEADER))
        job = msgspec.structs.replace(job, lease=lease, passed=_passed(endpoint, http), events=events)
        return await (self._stream if request.stream else self._short)(http, job, journal)

    @contextmanager
    def _told_of_the_end(self, http: web.Request) -> Iterator[None]:
        """Inside, to be cancelled because the proxy ends is an error as any other, while the client is there."""
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not self.ending or http.transport is None or http.transport.is_closing():
                raise
            task.uncancel()
            raise ApiError(503, "shutting_down", "the proxy was stopped", retry=True) from None

    def begin(self, journal: Journal, client: Client | None) -> None:
        """The request counts for its key from now. Raises ApiError 429."""
        if client is not None:
            self.clients.begin(client, journal.begin, today())
            journal.client = client

    def undo(self, journal: Journal) -> None:
        """The request goes another way, and counts there."""
        self.clients.undo(journal.client)
        journal.client = None

    async def _fetched(self, job: Job) -> Job:
        if job.fetch is None:
            return job
        request, count = await fetched(job.request, job.fetch, self.table.proxy.remote_images, self.fetcher)
        told = {**job.told, **({"x-imageworks-images": f"fetched={count}"} if count else {})}
        large = has_large_images(request, job.fetch)
        return msgspec.structs.replace(job, request=request, told=told, shrink=job.fetch if large else None)

    async def _shrunk(self, job: Job, journal: Journal) -> Job:
        if job.shrink is None:
            return job
        request, journal.shrunk = await shrunk(job.request, job.shrink, self.shrinker)
        before = job.told.get("x-imageworks-images")
        told = {**job.told, "x-imageworks-images": f"{before}, " * bool(before) + f"shrunk={journal.shrunk}"}
        return msgspec.structs.replace(job, request=request, told=told)

    async def _body(self, http: web.Request) -> bytes:
        if self.ending:
            raise ApiError(503, "shutting_down", "the proxy is stopping", retry=True, retry_after_s=1.0)
        if (http.content_length or 0) > self.table.proxy.body_limit_bytes:
            raise too_large(http.content_length)
        if http.headers.get("Content-Encoding", "identity") != "identity":
            raise ApiError(415, "encoding_refused", "compressed bodies are not taken")
        return await http.read()

    def chosen(self, request: Request) -> Chosen:
        """Who could answer, here or not. Raises ApiError for what nobody can.

        Remembered for requests without images, by endpoint and name: only what is found, so they are few.
        """
        allowed = self.table.proxy.parameters
        check_parameters(request.fields, allowed, self.table.proxy.completions)
        if request.video:
            check_video(allowed)
        key = (request.endpoint, request.model)
        found = None if request.images else self._chosen.get(key)
        if found is None:
            resolution = self._keys.usable(resolve(self.table, request.model))
            routes = {route.id: route for route in able(self.table, resolution, request)}
            start_s = max(route.start_timeout_s for route in resolution.routes)
            patience_s = resolution.contract.deadline_s if resolution.contract else DEADLINE_S + start_s
            reasons = any("reasoning" in route.capabilities for route in routes.values())
            first = next(iter(routes.values()))
            direct = first.key is None and request.endpoint in FAST and first.backend != "ollama"
            normalises = any(route.tool_calls == "normalise" for route in routes.values())
            found = Chosen(
                resolution, routes, tuple(routes), patience_s, reasons=reasons, direct=direct, normalises=normalises
            )
            if not request.images:
                self._chosen[key] = found
        return found

    def judge(self, request: Request, journal: Journal, client: Client | None = None) -> Chosen:
        """Every policy that looks at a request, asked on both ways. Raises ApiError for what is not to be served."""
        journal.asked(request)
        chosen = self.chosen(request)
        if client is not None:
            client.check(chosen.resolution.role, chosen.names)
        journal.resolved(chosen.resolution)
        journal.progress = self.drive.progress
        return chosen

    def plain(self, request: Request, chosen: Chosen) -> bool:
        """May a judged request take the fast path? It must go to the engine as `shape` makes it, with nothing to wait for.

        A policy that changes messages or images, or does something while the answer passes, says no here.
        """
        if not chosen.direct or (chosen.normalises and "tools" in request.fields):
            return False
        if not request.images and not chosen.reasons:
            return True
        _, found = self._cut(request, chosen)
        check_images(chosen.resolution, chosen.routes.values(), request)
        return not (found and found.dropped) and not has_large_images(request, self._image_rule(chosen))

    def job(
        self,
        request: Request,
        journal: Journal,
        client: Client | None = None,
        asked: Wish = Wish(),  # noqa: B008 - frozen
    ) -> Job:
        """Who may answer, and until when. Raises ApiError for what cannot be served."""
        chosen = self.judge(request, journal, client)
        changes: dict[str, str] = {}
        if asked.history and (request.images or chosen.reasons):
            request, journal.cut = self._cut(request, chosen)
            if journal.cut is not None and journal.cut.told:
                changes["x-imageworks-history"] = journal.cut.told
        rule = self._image_rule(chosen)
        if not asked.images:
            rule = dataclasses.replace(rule, max_edge_px=None)
        large = asked.images and not request.remote and has_large_images(request, rule)
        check_images(chosen.resolution, chosen.routes.values(), request)
        job = self.job_of(chosen, request, journal, here(request.model, told(chosen.routes, request), self.missing))
        return msgspec.structs.replace(
            job, told=changes, shrink=rule if large else None, fetch=rule if request.remote else None
        )

    def _cut(self, request: Request, chosen: Chosen) -> tuple[Request, Cut | None]:
        contract = chosen.resolution.contract
        rules = self.switches.apply(contract.history if contract else self.table.proxy.history)
        return cut(request, rules, _room(chosen, request), reasons=chosen.reasons)

    def _image_rule(self, chosen: Chosen) -> ImageRule:
        contract = chosen.resolution.contract
        return contract.images if contract else self.table.proxy.images

    def job_of(self, chosen: Chosen, request: Request, journal: Journal, routes: Mapping[str, Route]) -> Job:
        """The job of a request that `routes` may answer."""
        journal.table = self.table
        begin = journal.begin
        until = begin + chosen.patience_s
        queue_until = min(until, begin + self.table.proxy.queue_wait_s)
        return Job(journal.record_id, request, routes, chosen.resolution.contract, queue_until, until)

    def missing(self, route: Route) -> tuple[Need, ...]:
        """Needs of a route that are not on the disk; a model that runs needs nothing more."""
        if self.drive.state.slots[route.id].residency == "ready":
            return ()
        needs = (Need(expand(need.path, self._tokens), need.hint) for need in route.needs)
        return tuple(need for need in needs if not os.path.exists(need.path))  # noqa: PTH110 - half the cost of Path on the hot path

    async def _short(self, http: web.Request, job: Job, journal: Journal) -> web.Response:
        async with self._forwarder.answer(job, journal, retried=_retried(http)) as answer:
            response = await whole(answer, journal, _headers(answer, job))
        self.note(journal, answer.response.status)
        return response

    async def _stream(self, http: web.Request, job: Job, journal: Journal) -> web.StreamResponse:
        async with Stream(http, {"x-request-id": job.id}, lambda: self._waiting(job), self._quiet_s) as stream:
            try:
                with self._told_of_the_end(http):
                    async with self._forwarder.answer(job, journal, retried=_retried(http)) as answer:
                        response = await stream.relay(answer, journal, _headers(answer, job))
                self.note(journal, answer.response.status)
            except ApiError as error:
                await stream.end_comments()
                if stream.response is None:
                    raise
                self.record(journal, error)
                await stream.fail(error, anthropic=_anthropic(job))
                return stream.response
        return response

    def note(self, journal: Journal, status: int) -> None:
        """Record a request that the engine answered."""
        error = ApiError(status, "backend_error", "") if status >= 400 else None  # noqa: PLR2004 - any error the engine answers
        self.record(journal, error)

    def record(self, journal: Journal, error: ApiError | None, outcome: Outcome | None = None) -> None:
        """Write the line of a request, once: a client that hangs up after the last byte changes nothing any more."""
        if not journal.recorded:
            journal.close()
            if journal.client is not None:
                counted = journal.client.key.tokens_per_day is not None
                self.clients.end(journal.client, journal.facts().total() if counted else None)
            self._records.write(partial(journal.line, journal.table or self.table, error, outcome))

    def _waiting(self, job: Job) -> bytes:
        model = next(iter(job.routes))
        slot = self.drive.state.slots.get(model)
        state = "not in the plan any more" if slot is None else slot.residency
        found = Waiting(model, state, *self._place(job), int(job.queue_until - time.monotonic()))
        return found.event() if job.events else found.comment()

    def _place(self, job: Job) -> tuple[int | None, float | None]:
        """Where the request stands, while it waits, and for how many seconds yet."""
        ticket = next((name for name in self.drive.state.waiting if name.startswith(f"{job.id}#")), None)
        if ticket is None:
            return None, None
        try:
            return position(self.drive.state, ticket)
        except KeyError:  # its model, or one that is waited for, is not in the plan any more
            return None, None


def _room(chosen: Chosen, request: Request) -> Room:
    """What the smallest of the models that may answer takes in one request."""
    contract, routes = chosen.resolution.contract, chosen.routes.values()
    images = [route.images_max for route in routes if "vision" in route.capabilities]
    if contract is not None and contract.images_max is not None:
        images = [min(most, contract.images_max) for most in images]
    context = min(route.context for route in routes)
    tokens = max(route.image_tokens for route in routes)
    return Room(max(0, context - max_tokens(request, contract)), max(images, default=0), tokens)


def _headers(answer: Answer, job: Job) -> dict[str, str]:
    status, changes = answer.response.status, dict(job.told)
    if answer.tools is not None:
        changes[toolcalls.HEADER] = "normalise"
    if answer.translation is not None and status == 200:  # noqa: PLR2004 - an error is JSON in either dialect
        changes["Content-Type"] = answer.translation.content_type
    return headers(status, answer.response.headers, answer.route, answer.shaped, changes)


def _passed(endpoint: Endpoint, http: web.Request) -> dict[str, str]:
    """The client's headers that the engine gets; one that stands there more than once is one list."""
    names = ENDPOINTS[endpoint].passes
    found = {name: ", ".join(http.headers.getall(name)) for name in names if name in http.headers}
    for name, value in found.items():
        if not (value.isascii() and value.isprintable()):
            raise ApiError(400, "invalid_header", f"{name} holds characters that no header can carry")
    return found


def _anthropic(job: Job) -> bool:
    return ENDPOINTS[job.request.endpoint].dialect == "anthropic"


def _retried(http: web.Request) -> bool:
    """Was it sent to an engine by the fast path already?"""
    return bool(getattr(http.protocol, "retried", False))
