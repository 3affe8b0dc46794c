"""A whole proxy in a thread, spoken to over raw sockets, in front of an engine that answers what it is told, byte by byte."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
import uvloop

from imageworks import contract
from imageworks.runtime.app import listening
from imageworks.runtime.drive import Drive
from imageworks.runtime.proxy import Proxy
from imageworks.runtime.records import RecordLog
from imageworks.runtime.start import listen
from imageworks.runtime.wire.edge import Edge

T = TypeVar("T")
ANSWER = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":5}}'
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
BODY_LIMIT = 4 << 20


@dataclass
class Script:
    """What the engine does with a request whose `user` names it: bytes, or an event to wait for, or `drop`/`reset`."""

    steps: tuple[object, ...] = (PLAIN,)


@dataclass
class Engine:
    """An HTTP server that knows nothing of HTTP but where a request ends."""

    scripts: dict[str, Script] = field(default_factory=dict)
    requests: list[bytes] = field(default_factory=list)
    hit: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    sent: int = 0
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
                body = await reader.readexactly(length)
                self.requests.append(head + body)
                self.hit.set()
                if not await self._play(self._script(body), reader, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.transport.abort()

    def _script(self, body: bytes) -> Script:
        try:
            return self.scripts.get(json.loads(body).get("user") or "", Script())
        except (ValueError, AttributeError):
            return Script()

    async def _play(self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        for step in script.steps:
            if isinstance(step, bytes):
                writer.write(step)
                self.sent += len(step)
                await writer.drain()
                await asyncio.sleep(0)  # so that the pieces arrive as pieces
            elif isinstance(step, threading.Event):
                gone = asyncio.ensure_future(reader.read(1))
                while not step.is_set() and not gone.done():  # noqa: ASYNC110 - set from another thread
                    await asyncio.sleep(0.002)
                if gone.done():
                    self.left.set()
                    return False
                gone.cancel()
                await asyncio.gather(gone, return_exceptions=True)
            elif step == "drop":
                return False
        return True


async def _all_over(tasks: Iterable[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


class Bed:
    """A running proxy: `port`, its `engine`, and `call` to run something in its loop."""

    def __init__(self, folder: Path, *, fast: bool, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.engine, self.fast, self._folder, self._factory = Engine(), fast, folder, factory
        self.port = 0
        self.proxy: Proxy
        self.edge: Edge
        self._up, self._loop, self._end = threading.Event(), factory(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._up.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(_all_over(left))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _serve(self) -> None:
        async with AsyncExitStack() as stack:
            engine = await asyncio.start_server(self.engine.serve, "127.0.0.1", 0, limit=1 << 24)
            table = _table(engine.sockets[0].getsockname()[1])
            http = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
            drive = Drive(table, {})
            self.records = RecordLog(self._folder / "requests.jsonl")
            self.proxy = Proxy(drive, http, self.records, {}, quiet_s=60)
            sock = listen("127.0.0.1", 0)
            self.port = sock.getsockname()[1]
            self.edge = await stack.enter_async_context(listening(self.proxy, sock, fast=self.fast))
            await drive.open()
            self._up.set()
            await self._end.wait()
            await drive.close()
            engine.close()
        for _ in range(3):
            await asyncio.sleep(0)

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(10)

    def soon(self, work: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(work)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)
        self.records.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def lines(self) -> list[dict[str, Any]]:
        self.records.close()
        return [json.loads(line) for line in (self._folder / "requests.jsonl").read_text().splitlines()]


def _table(engine: int) -> contract.RouteTable:
    def route(name: str, port: int, **changes: Any) -> contract.Route:
        facts: dict[str, Any] = {
            "id": name, "backend": "openai", "program": None, "url": f"http://127.0.0.1:{port}", "served_name": f"served-{name}",
            "aliases": (), "capabilities": ("chat", "vision", "embedding"), "quantization": None, "context": 2048,
            "concurrency": 64, "images_max": 4, "gpu_mib": {}, "host_mib": 0, "grace_s": 600.0, "start_timeout_s": 20.0,
            "stop_timeout_s": 10.0, "pinned": False, "sampling": {}, "needs": (),
        }  # fmt: skip
        return contract.Route(**(facts | changes))

    routes = (
        route("small", engine),
        route("one", engine, concurrency=1),
        route("gone", 9),
        route("closes", engine, backend="llamacpp"),
    )
    settings = contract.ProxySettings("127.0.0.1", 8100, BODY_LIMIT, 64, 30.0, 5.0)
    policy = contract.Policy("concurrent_limited", 8, 4096, ())
    return contract.RouteTable(
        "test", "development", "p" * 64, "b" * 64, settings, policy, (), {each.id: each for each in routes}, {}, {"development": {}}
    )  # fmt: skip


LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


@pytest.fixture(scope="module", params=["fast-uvloop", "fast-asyncio", "slow-uvloop"])
def bed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """One proxy for a file of tests, at each speed."""
    speed, _, loop = str(request.param).partition("-")
    made = Bed(tmp_path_factory.mktemp("bed"), fast=speed == "fast", factory=LOOPS[loop])
    yield made
    made.close()


@pytest.fixture(scope="module")
def beds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bed, Bed]]:
    """The same proxy twice: fast, slow."""
    made = tuple(
        Bed(tmp_path_factory.mktemp("bed"), fast=fast, factory=uvloop.new_event_loop) for fast in (True, False)
    )
    yield made[0], made[1]
    for each in made:
        each.close()


@dataclass(frozen=True)
class Response:
    """One response: `fields` by lower-case name, `body` without framing; `whole` False when it broke off."""

    status: int
    fields: Mapping[str, str]
    body: bytes
    whole: bool = True


class Wire:
    """A client's end of a connection, which reads responses strictly."""

    def __init__(self, bed: Bed, timeout_s: float = 10.0) -> None:
        self.sock = bed.connect()
        self.sock.settimeout(timeout_s)
        self.held = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def more(self) -> bytes:
        """More bytes, b"" at the end; a reset is an end."""
        try:
            return self.sock.recv(1 << 16)
        except ConnectionError:
            return b""

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self.held:
            if not (data := self.more()):
                return None
            self.held += data
        found, _, self.held = self.held.partition(mark)
        return found

    def _exactly(self, length: int) -> bytes:
        while len(self.held) < length and (data := self.more()):
            self.held += data
        found, self.held = self.held[:length], self.held[length:]
        return found

    def response(self, method: str = "POST") -> Response | None:
        """The next response, None when the connection ends instead."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        line, *lines = head.decode("latin-1").split("\r\n")
        version, status, *_ = line.split(" ")
        assert version in ("HTTP/1.1", "HTTP/1.0")
        fields = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        if int(status) < 200 or method == "HEAD" or int(status) in (204, 304):
            return Response(int(status), fields, b"")
        if fields.get("transfer-encoding") == "chunked":
            assert "content-length" not in fields
            return self._chunked(int(status), fields)
        if "content-length" in fields:
            body = self._exactly(int(fields["content-length"]))
            return Response(int(status), fields, body, len(body) == int(fields["content-length"]))
        body = b""
        while data := self.held or self.more():
            body, self.held = body + data, b""
        return Response(int(status), fields, body)

    def _chunked(self, status: int, fields: Mapping[str, str]) -> Response:
        body = b""
        while True:
            size = self._until(b"\r\n")
            if size is None:
                return Response(status, fields, body, whole=False)
            length = int(size, 16)
            piece = self._exactly(length)
            body += piece
            if len(piece) < length or self._exactly(2) != b"\r\n":
                return Response(status, fields, body, whole=False)
            if not length:
                return Response(status, fields, body)

    def open(self) -> bool:
        """Does the connection still serve?"""
        try:
            self.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        except ConnectionError:
            return False
        found = self.response()
        assert found is None or found.status == 200, found
        return found is not None

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def wire(bed: Bed) -> Iterator[Callable[[], Wire]]:
    """`wire()`: a new connection to the bed; all are closed in the end."""
    made: list[Wire] = []

    def connect() -> Wire:
        made.append(Wire(bed))
        return made[-1]

    yield connect
    for each in made:
        each.close()


@pytest.fixture
def connect_to() -> Iterator[Callable[[Bed], Wire]]:
    """`connect_to(bed)`: as `wire`, for tests with several beds."""
    made: list[Wire] = []

    def connect(bed: Bed) -> Wire:
        made.append(Wire(bed))
        return made[-1]

    yield connect
    for each in made:
        each.close()
