"""A proxy on a free port over engines of this process, which start, load, answer and die on command."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import openai
import pytest
from aiohttp import web

from imageworks import contract
from imageworks.runtime.app import listening
from imageworks.runtime.backends.probe import serves
from imageworks.runtime.backends.protocol import Look, SleepError, Status
from imageworks.runtime.conversation import switches
from imageworks.runtime.drive import Drive
from imageworks.runtime.keys import read as read_keys
from imageworks.runtime.keys import read_clients
from imageworks.runtime.proxy import Proxy
from imageworks.runtime.records import RecordLog
from imageworks.runtime.reload import Reloader
from imageworks.runtime.residency import managed
from imageworks.runtime.start import listen


def make_route(name: str, port: int = 1, **changes: Any) -> contract.Route:
    facts: dict[str, Any] = {
        "id": name,
        "backend": "llamacpp",
        "program": f"model-{name}",
        "url": f"http://127.0.0.1:{port}",
        "served_name": f"served-{name}",
        "aliases": (),
        "capabilities": ("chat",),
        "quantization": None,
        "context": 2048,
        "concurrency": 4,
        "images_max": 0,
        "gpu_mib": {},
        "host_mib": 300,
        "grace_s": 600.0,
        "start_timeout_s": 20.0,
        "stop_timeout_s": 10.0,
        "pinned": False,
        "sampling": {},
        "needs": (),
    }
    return contract.Route(**(facts | changes))


def make_role(*models: str, **changes: Any) -> contract.RoleTable:
    candidates = tuple(
        contract.RoleCandidate(
            model=name, priority=90 - 10 * place, via="chat", vram_mib=300, quantization=None, why=""
        )
        for place, name in enumerate(models)
    )
    facts: dict[str, Any] = {
        "candidates": candidates,
        "rejected": {},
        "requires": ("chat",),
        "images_max": None,
        "max_tokens": None,
        "deadline_s": 60.0,
    }
    return contract.RoleTable(**(facts | changes))


def make_table(
    *routes: contract.Route,
    roles: Mapping[str, contract.RoleTable] | None = None,
    policy: contract.Policy | None = None,
    **changes: Any,
) -> contract.RouteTable:
    settings: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": 8100,
        "body_limit_bytes": 1 << 20,
        "queue": 16,
        "queue_wait_s": 30.0,
        "drain_s": 5.0,
        "parameters": (),
        "completions": 4,
        "history": contract.History(),
        "images": contract.ImageRule(),
        "keys": (),
        "remote_images": (),
    }
    settings |= {name: changes.pop(name) for name in tuple(changes) if name in settings}
    facts: dict[str, Any] = {
        "stack": "test",
        "profile": "development",
        "plan_hash": "p" * 64,
        "bundle_hash": "b" * 64,
        "proxy": contract.ProxySettings(**settings),
        "policy": policy or contract.Policy("concurrent_limited", 8, 4096, ()),
        "gpus": (),
        "routes": {route.id: route for route in routes},
        "unplaced": {},
        "roles": {"development": dict(roles or {})},
    }
    return contract.RouteTable(**(facts | changes))


class Engine:
    """One engine of this process, and its driver: a real server on a real port while it runs."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.port = name, port
        self.served_name, self.words = f"served-{name}", ""
        self.starts = self.stops = self.hits = 0
        self.seen: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self.loaded, self.go_on = asyncio.Event(), asyncio.Event()
        self.loaded.set()
        self.go_on.set()
        self.hit, self.client_left = asyncio.Event(), asyncio.Event()
        self.dies_at_start: str | None = None
        self.dies_mid_answer = self.dies_before_answer = False
        self.pieces: tuple[bytes, ...] = (
            b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n',
            b'data: {"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}\n\n',
            b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}\n\n',
            b"data: [DONE]\n\n",
        )
        self.status_code, self.refusal = 200, "engine says no"
        self.said, self.reason = f"I am {name}", "length"
        self._runner: web.AppRunner | None = None
        self._http: aiohttp.ClientSession | None = None

    # the driver

    async def start(self) -> None:
        self.starts += 1
        if self.dies_at_start is not None:
            self.words = self.dies_at_start
            return
        await self.listen()

    async def stop(self) -> None:
        self.stops += 1
        await self.kill()

    async def status(self) -> Status:
        return Status(self._runner is not None, "RUNNING" if self._runner else "EXITED")

    async def ready(self) -> bool:
        async with aiohttp.ClientSession() as session:
            route = make_route(self.name, self.port)
            return self._runner is not None and await serves(session, route)

    def log(self) -> str:
        return self.words

    def obstacle(self) -> str:
        return ""

    async def pids(self) -> tuple[int, ...]:
        return ()

    async def sleep(self, level: int) -> None:
        raise SleepError(f"no sleep at level {level}")

    async def wake(self) -> None:
        raise SleepError("no sleep, so no waking")

    async def asleep(self) -> bool:
        return False

    async def look(self) -> Look:
        return Look("ok" if self.loaded.is_set() else "failing")

    async def canary(self, timeout_s: float) -> bool | None:
        return True if timeout_s else None

    # the server

    async def listen(self) -> None:
        if self._runner is None:
            app = web.Application(client_max_size=1 << 30)
            app.router.add_get("/health", self._health)
            app.router.add_get("/v1/models", self._models)
            app.router.add_post("/v1/{rest:.*}", self._answer)
            self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
            await self._runner.setup()
            await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def kill(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(status=200 if self.loaded.is_set() else 503)

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": self.served_name}]})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.hits += 1
        self.bodies.append(await request.read())
        self.headers.append(request.headers)
        self.paths.append(request.path)
        body = json.loads(self.bodies[-1]) if request.content_type == "application/json" else {}
        self.seen.append(body)
        self.hit.set()
        if self.dies_before_answer:
            self.dies_before_answer = False
            await self._drop(request)
        try:
            if self.status_code != 200:
                await self.go_on.wait()
                said = self.refusal.format(key=request.headers.get("Authorization"))
                return web.json_response({"error": {"message": said}}, status=self.status_code)
            return await (self._stream(request) if body.get("stream") else self._short())
        except asyncio.CancelledError:
            self.client_left.set()
            raise

    async def _short(self) -> web.Response:
        await self.go_on.wait()
        usage = {
            "prompt_tokens": 5,
            "completion_tokens": 3,
            "total_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 4},
        }
        choice = {
            "index": 0,
            "finish_reason": self.reason,
            "message": {"role": "assistant", "content": self.said},
        }
        answer = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": self.served_name,
            "choices": [choice],
            "usage": usage,
        }
        return web.json_response(answer)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        for place, piece in enumerate(self.pieces):
            await stream.write(piece)
            if place == 0:
                await self.go_on.wait()
                if self.dies_mid_answer:
                    await stream.write(b'data: {"choices":[{"index":0,"del')
                    await self._drop(request)
        await stream.write_eof()
        return stream

    async def _drop(self, request: web.Request) -> None:
        """The process is gone: nobody listens, and the connection breaks."""
        runner, self._runner = self._runner, None
        assert runner is not None
        for site in tuple(runner.sites):
            await site.stop()
        self.cleanup_later = runner
        assert request.transport is not None
        request.transport.abort()
        await asyncio.sleep(0)


class Maker:
    """Makes engines for the routes of later tables: the one that is there where name and port are the same."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self.engines, self.all = engines, list(engines.values())
        self.elsewhere: Mapping[str, Engine] = {}

    def make(self, route: contract.Route) -> Engine | None:
        return self.look_at(route) if managed(route) else None

    def look_at(self, route: contract.Route) -> Engine:
        port = urlsplit(route.url).port or 0
        found = next((each for each in self.all if (each.name, each.port) == (route.id, port)), None)
        if found is None:
            found = Engine(route.id, port)
            self.all.append(found)
        return found


class World:
    """A proxy at `url` with its engines; `lines` are the request records after `close_records`."""

    def __init__(self, proxy: Proxy, maker: Maker, url: str, records: RecordLog, log: Path) -> None:
        self.proxy, self.engines, self.url, self._records, self._log = proxy, maker.engines, url, records, log
        self.maker, self.routes = maker, log.parents[2] / "routes.json"
        self.http = aiohttp.ClientSession(url)
        self.client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

    async def post(
        self, body: object, path: str = "/v1/chat/completions", **options: Any
    ) -> tuple[int, Any, Mapping[str, str]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(path, data=io.BytesIO(data), **options) as answer:
            return answer.status, msgspec.json.decode(await answer.read()), answer.headers

    async def get(self, path: str, **options: Any) -> tuple[int, Any]:
        async with self.http.get(path, **options) as answer:
            return answer.status, msgspec.json.decode(await answer.read())

    async def reload(self, table: contract.RouteTable | str) -> tuple[int, Any]:
        """Put another table there, and ask for it."""
        self.routes.write_text(table if isinstance(table, str) else contract.to_json(table))
        status, answer, _ = await self.post(b"", "/v1/reload")
        return status, answer

    async def until(self, true: Callable[[], object]) -> None:
        """Let the loop run until something that has to happen has happened; the test's own time limit bounds it."""
        while not true():  # noqa: ASYNC110 - there is no event for the inside of the scheduler
            await asyncio.sleep(0)

    def lines(self) -> list[dict[str, Any]]:
        self._records.close()
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []


@asynccontextmanager
async def _world(
    folder: Path,
    ports: tuple[int, ...],
    table: contract.RouteTable,
    engines: Mapping[str, Engine],
    *,
    quiet_s: float,
    opened: bool,
    environ: Mapping[str, str],
    fast: bool,
) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        drive = Drive(table, engines)
        log = folder / "state" / "log" / "requests.jsonl"
        records = RecordLog(log)
        keys = read_keys(table, folder, environ)
        proxy = Proxy(
            drive,
            http,
            records,
            {"models": str(folder), "stack": str(folder)},
            quiet_s=quiet_s,
            keys=keys,
            clients=read_clients(table, folder, environ),
            switches=switches(environ),
        )
        stack.callback(proxy.shrinker.close)
        maker = Maker(engines)
        reloader = Reloader(proxy, folder / "routes.json", folder, environ, maker)
        await stack.enter_async_context(listening(proxy, listen("127.0.0.1", ports[-1]), fast=fast, reloader=reloader))
        if opened:
            await drive.open()
        world = World(proxy, maker, f"http://127.0.0.1:{ports[-1]}", records, log)
        stack.push_async_callback(world.http.close)
        stack.push_async_callback(world.client.close)
        stack.callback(records.close)
        try:
            yield world
        finally:
            await drive.close()
            for engine in maker.all:
                await engine.kill()
                dropped = getattr(engine, "cleanup_later", None)
                if dropped is not None:
                    await dropped.cleanup()


@pytest.fixture
def route() -> Callable[..., contract.Route]:
    return make_route


@pytest.fixture
def role() -> Callable[..., contract.RoleTable]:
    return make_role


@pytest.fixture
def table() -> Callable[..., contract.RouteTable]:
    return make_table


@pytest.fixture(params=["fast", "slow"])
def speed(request: pytest.FixtureRequest) -> str:
    """Every promise of the proxy holds on both of its ways."""
    return str(request.param)


@pytest.fixture
def world(tmp_path: Path, free_ports: Callable[[int], tuple[int, ...]], speed: str) -> Callable[..., Any]:
    """`async with world(routes={...}, roles=..., **table) as w`: routes maps a name to changes of its route."""

    def build(
        routes: Mapping[str, Mapping[str, Any]],
        *,
        quiet_s: float = 60.0,
        opened: bool = True,
        environ: Mapping[str, str] | None = None,
        **table: Any,
    ) -> Any:
        ports = free_ports(len(routes) + 1)
        made = [make_route(name, port, **changes) for (name, changes), port in zip(routes.items(), ports, strict=False)]
        engines = {made_route.id: Engine(made_route.id, port) for made_route, port in zip(made, ports, strict=False)}
        whole = make_table(*made, **table)
        settings: dict[str, Any] = {"quiet_s": quiet_s, "opened": opened, "environ": environ or {}}
        return _world(tmp_path, ports, whole, engines, **settings, fast=speed == "fast")

    return build


@pytest.fixture
def play() -> Callable[[Coroutine[Any, Any, None]], None]:
    def run(story: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):  # only catches a hang
                await story

        asyncio.run(bounded())

    return run


ENGINE = Path(__file__).parent / "backends" / "engine_program.py"


@pytest.fixture
def stack() -> Iterator[Path]:
    """A stack's folder with a path short enough for a unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="iw"))
    (folder / ".imageworks" / "run").mkdir(parents=True)
    (folder / ".imageworks" / "log").mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def supervisord(stack: Path) -> Iterator[Callable[[Mapping[str, tuple[int, str]]], int]]:
    """`supervisord({"a": (port, mode)})` starts it with these programs; returns its pid once it listens."""
    started: list[subprocess.Popen[bytes]] = []

    def start(programs: Mapping[str, tuple[int, str]]) -> int:
        home = stack / ".imageworks"
        text = ENGINE.with_name("supervisord.conf.txt").read_text().format(home=home, user=home.owner())
        for name, (port, mode) in programs.items():
            text += (
                ENGINE.with_name("program.conf.txt")
                .read_text()
                .format(name=name, port=port, mode=mode, python=sys.executable, engine=ENGINE, home=home)
            )
        (stack / "supervisord.conf").write_text(text)
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(stack / "supervisord.conf")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started.append(process)
        end = time.monotonic() + 20
        with socket.socket(socket.AF_UNIX) as probe:  # the socket's file is there a moment before anybody listens
            while probe.connect_ex(str(home / "run" / "supervisor.sock")) and time.monotonic() < end:
                time.sleep(0.01)
        return process.pid

    yield start
    for process in started:
        process.terminate()
        process.wait(20)
