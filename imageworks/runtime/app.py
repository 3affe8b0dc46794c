"""The running proxy, wired together.

Owns the parts' order of starting and of ending (refuse new work, let requests finish within the drain time, end the
rest with an error event, leave the models running). No judgement.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import aiohttp
from aiohttp import web

from imageworks import locations
from imageworks.contract import ContractError, RouteTable
from imageworks.runtime.api_views import describe
from imageworks.runtime.backends.choose import Drivers
from imageworks.runtime.conversation import Switches, switches
from imageworks.runtime.drive import Drive
from imageworks.runtime.endpoints import paths
from imageworks.runtime.events import Drain, Reading
from imageworks.runtime.gpus import Gpus, bound_cards
from imageworks.runtime.guard import guard
from imageworks.runtime.health_views import HealthViews
from imageworks.runtime.keys import read as read_keys
from imageworks.runtime.keys import read_clients
from imageworks.runtime.lease_views import LeaseViews
from imageworks.runtime.ledger import Kept, Ledger, LedgerError
from imageworks.runtime.proxy import Proxy
from imageworks.runtime.records import RecordLog
from imageworks.runtime.reload import Reloader
from imageworks.runtime.reload_views import ReloadViews
from imageworks.runtime.views import Views
from imageworks.runtime.watch import Watch
from imageworks.runtime.wire.edge import Edge, accepting

if TYPE_CHECKING:
    from imageworks.runtime.wire.hot import Hot

LOG = logging.getLogger(__name__)
KEEPALIVE_UPSTREAM_S = 2.0
"""Below the 5 s of llama.cpp and vLLM, so that a connection they are about to close is not used again."""
UNBOUNDED = 1 << 40
"""aiohttp's own bound for bodies: every body comes through `wire.front`, which has the bound of the table in force."""
FAST_PATH = "IMAGEWORKS_FAST_PATH"
"""`off` lets aiohttp serve everything: to find out whether a fault is the fast path's."""


async def run(table: RouteTable, routes: Path, stack: Path, init: str, sock: socket.socket) -> int:
    """Serve `table` on a listening socket until SIGTERM or SIGINT; the process's exit code. SIGHUP reads `routes` again."""
    ending, hurry, asked = asyncio.Event(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        (hurry if ending.is_set() else ending).set()  # a second signal means: at once

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGHUP, asked.set)
    ledger = Ledger(Path(locations.tokens(stack, table.roots, os.environ)["state"]))
    try:
        kept, switched = ledger.open(), switches(os.environ)
    except (LedgerError, ContractError) as error:
        LOG.critical("%s", error)
        return 1
    async with (
        _proxy(table, routes, stack, init, (ledger, kept), switched=switched) as (proxy, reloader),
        listening(proxy, sock, reloader=reloader) as edge,
    ):
        LOG.info(
            "profile %s, plan %s, http://%s:%d/v1",
            table.profile,
            table.plan_hash[:12],
            table.proxy.host,
            table.proxy.port,
        )
        await proxy.drive.open()
        async with watching(proxy), _beside(reloader.whenever(asked)):
            await ending.wait()
            edge.end()
            await drain(proxy, hurry)
    return 0


@asynccontextmanager
async def watching(proxy: Proxy) -> AsyncIterator[None]:
    """Inside, the health of the models is watched."""
    if proxy.watch is None:
        yield
        return
    async with _beside(proxy.watch.run()):
        yield


@asynccontextmanager
async def _beside(work: Coroutine[object, object, None]) -> AsyncIterator[None]:
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def _proxy(
    table: RouteTable, routes: Path, stack: Path, init: str, state: tuple[Ledger, Kept], *, switched: Switches
) -> AsyncIterator[tuple[Proxy, Reloader]]:
    ledger, kept = state
    tokens = locations.tokens(stack, table.roots, os.environ)
    keys = read_keys(table, stack, os.environ)
    for model, reason in keys.missing.items():
        LOG.warning("%s cannot be asked: %s", model, reason)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_UPSTREAM_S)
    records = RecordLog(locations.request_log(tokens))
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False, trust_env=False) as http:
        gpus = Gpus(bound_cards(stack, table))

        async def readings() -> Mapping[int, Reading | None] | None:
            return await drive.measuring.readings()

        drivers = Drivers(table.routes, stack, init, http, readings)
        drive = Drive(table, drivers.by_model, ledger=ledger, kept=kept, gpus=gpus, stack=stack)
        watch = Watch(drive, drive.lineup, drivers.elsewhere, table.policy.health_check_interval_s)
        clients = read_clients(table, stack, os.environ)
        for name, reason in clients.missing.items():
            LOG.warning("the key of client %s cannot be shown: %s", name, reason)
        proxy = Proxy(drive, http, records, tokens, keys=keys, watch=watch, clients=clients, switches=switched)
        reloader = Reloader(proxy, routes, stack, os.environ, drivers)
        try:
            yield proxy, reloader
        finally:
            await drive.close()
            await drivers.close()
            proxy.shrinker.close()
            records.close()
            ledger.close()


def application(proxy: Proxy, reloader: Reloader | None = None) -> web.Application:
    """All endpoints of a proxy; without a `reloader` its table stays."""
    app = web.Application(middlewares=[guard(proxy.clients)], client_max_size=UNBOUNDED)
    views = Views(proxy)
    for path, name in paths().items():
        app.router.add_post(path, proxy.endpoint(name))
    app.router.add_get("/v1/models", views.models)
    app.router.add_get("/v1/models/health", HealthViews(proxy).health)
    app.router.add_get("/v1/models/select_by_role", views.select)
    app.router.add_get("/v1/models/{name:.+}", views.model)
    app.router.add_get("/v1/config/profile", views.profile)
    app.router.add_get("/openapi.json", describe)
    app.router.add_get("/healthz", views.healthz)
    app.router.add_get("/readyz", views.readyz)
    app.router.add_get("/running", views.running)
    app.router.add_post("/unload", views.unload)
    if reloader is not None:
        app.router.add_post("/v1/reload", ReloadViews(reloader).reload)
    app.router.add_routes(LeaseViews(proxy.drive).routes())
    app.on_response_prepare.append(_unsigned)
    return app


async def _unsigned(_request: web.Request, response: web.StreamResponse) -> None:
    """Nobody needs to know which server this is, in which version."""
    response.headers.pop("Server", None)


@asynccontextmanager
async def listening(
    proxy: Proxy, sock: socket.socket, *, fast: bool | None = None, reloader: Reloader | None = None
) -> AsyncIterator[Edge]:
    """Serve clients of a listening socket. `fast` None: unless switched off by FAST_PATH or impossible here."""
    # a handler whose client is gone is cancelled: only so the engine's work ends too
    runner = web.AppRunner(
        application(proxy, reloader), access_log=None, handler_cancellation=True, shutdown_timeout=1.0
    )
    await runner.setup()
    assert runner.server is not None  # noqa: S101 - set up just now
    fast = os.environ.get(FAST_PATH) != "off" if fast is None else fast
    hot = _hot(proxy) if fast else None
    try:
        async with accepting(proxy, runner.server, sock, hot, runner.cleanup) as edge:
            yield edge
    finally:
        await runner.cleanup()


def _hot(proxy: Proxy) -> Hot | None:
    try:
        return cast("Hot", importlib.import_module("imageworks.runtime.wire.hot").Hot(proxy))
    except ImportError as error:
        LOG.warning("no fast path: %s; aiohttp serves everything", error)
        return None


async def drain(proxy: Proxy, hurry: asyncio.Event | None = None) -> None:
    """Refuse new work, wait for what is in flight up to the drain time or until `hurry`, then end the rest with an error."""
    proxy.ending = True
    proxy.drive.say(Drain())
    until = time.monotonic() + proxy.table.proxy.drain_s
    LOG.info("stopping; %d requests in flight", len(proxy.active))
    waits = [asyncio.ensure_future(proxy.quiet()), asyncio.ensure_future((hurry or asyncio.Event()).wait())]
    await asyncio.wait(waits, timeout=until - time.monotonic(), return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    for work in tuple(proxy.active):
        work.cancel()
    LOG.info("stopped; the models stay as they are")
