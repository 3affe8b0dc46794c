"""`serve`: the running proxy, wired together.

Owns the process: reading routes.json, the sockets, the order of starting and of ending (refuse new work, let
requests finish within the drain time, end the rest with an error event, leave the models running). No judgement.
"""

from __future__ import annotations

import asyncio
import errno
import importlib
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import aiohttp
from aiohttp import web

from imageworks import locations
from imageworks.contract import ContractError, RouteTable
from imageworks.runtime.backends.choose import Drivers
from imageworks.runtime.drive import Drive
from imageworks.runtime.events import Drain
from imageworks.runtime.guard import guard, is_local
from imageworks.runtime.proxy import Proxy
from imageworks.runtime.records import RecordLog
from imageworks.runtime.table import load
from imageworks.runtime.views import Views

LOG = logging.getLogger(__name__)
KEEPALIVE_UPSTREAM_S = 2.0
"""Below the 5 s of llama.cpp and vLLM, so that a connection they are about to close is not used again."""
KEEPALIVE_CLIENT_S = 75.0


def serve(routes: Path, stack: Path, init: str) -> int:
    """Serve `routes` for the stack in folder `stack` until SIGTERM or SIGINT; 0 after draining, 1 when it cannot start."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        table = load(routes)
    except ContractError as error:
        return _say(str(error))
    if not is_local(table.proxy.host):
        return _say(
            f"proxy.bind {table.proxy.host} is not a loopback address, and there are no keys yet; bind 127.0.0.1"
        )
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(table, stack, init))
    except OSError as error:
        return _say(_bind_failure(error, table))
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        return cast("Callable[[], asyncio.AbstractEventLoop]", importlib.import_module("uvloop").new_event_loop)
    except ImportError:
        return asyncio.new_event_loop


def _say(message: str) -> int:
    sys.stderr.write(f"imageworks: error: {message}\n")
    return 1


def _bind_failure(error: OSError, table: RouteTable) -> str:
    where = f"{table.proxy.host}:{table.proxy.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is taken by another program; end it, or change proxy.bind in stack.yaml and compile"
    return f"cannot listen on {where}: {error.strerror or error}"


async def _serve(table: RouteTable, stack: Path, init: str) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    async with _proxy(table, stack, init) as proxy, _listening(proxy):
        LOG.info(
            "profile %s, plan %s, http://%s:%d/v1",
            table.profile,
            table.plan_hash[:12],
            table.proxy.host,
            table.proxy.port,
        )
        await proxy.drive.open()
        await ending.wait()
        await drain(proxy)


@asynccontextmanager
async def _proxy(table: RouteTable, stack: Path, init: str) -> AsyncIterator[Proxy]:
    tokens = locations.tokens(stack, table.roots, os.environ)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_UPSTREAM_S)
    records = RecordLog(locations.request_log(tokens))
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False, trust_env=False) as http:
        drivers = Drivers(table.routes, stack, init, http)
        drive = Drive(table, drivers.by_model)
        try:
            yield Proxy(drive, http, records, tokens)
        finally:
            await drive.close()
            await drivers.close()
            records.close()


def application(proxy: Proxy) -> web.Application:
    """All endpoints of a proxy."""
    app = web.Application(middlewares=[guard], client_max_size=proxy.table.proxy.body_limit_bytes)
    views = Views(proxy)
    app.router.add_post("/v1/chat/completions", proxy.endpoint("chat/completions"))
    app.router.add_post("/v1/completions", proxy.endpoint("completions"))
    app.router.add_post("/v1/embeddings", proxy.endpoint("embeddings"))
    app.router.add_get("/v1/models", views.models)
    app.router.add_get("/v1/models/select_by_role", views.select)
    app.router.add_get("/v1/config/profile", views.profile)
    app.router.add_get("/healthz", views.healthz)
    app.router.add_get("/readyz", views.readyz)
    app.router.add_get("/running", views.running)
    app.router.add_post("/unload", views.unload)
    return app


@asynccontextmanager
async def _listening(proxy: Proxy) -> AsyncIterator[None]:
    # a handler whose client is gone is cancelled: only so the engine's work ends too
    runner = web.AppRunner(
        application(proxy),
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=KEEPALIVE_CLIENT_S,
        shutdown_timeout=1.0,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, proxy.table.proxy.host, proxy.table.proxy.port).start()
        yield
    finally:
        await runner.cleanup()


async def drain(proxy: Proxy) -> None:
    """Refuse new work, wait for what is in flight up to the drain time, then end the rest with an error."""
    proxy.ending = True
    proxy.drive.say(Drain())
    until = time.monotonic() + proxy.table.proxy.drain_s
    LOG.info("stopping; %d requests in flight", len(proxy.active))
    with suppress(TimeoutError):
        async with asyncio.timeout(until - time.monotonic()):
            while proxy.active:
                await asyncio.wait(proxy.active, return_when=asyncio.FIRST_COMPLETED)
    for task in proxy.active:
        task.cancel()
    LOG.info("stopped; the models stay as they are")
