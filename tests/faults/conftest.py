"""A bench for faults: real supervisord, real programs that misbehave, and the real proxy as a process of its own.

Nothing is simulated below the proxy: what a test kills is a process, what it fills is a file.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from imageworks import contract
from imageworks.runtime import processes
from imageworks.runtime.backends.choose import Drivers
from imageworks.runtime.backends.protocol import Readings
from imageworks.runtime.events import Reading

TOOLS = Path(__file__).parents[1] / "tools"
BAD_ENGINE, OLLAMA, VLLM = TOOLS / "bad_engine.py", TOOLS / "ollama_standin.py", TOOLS / "vllm_standin.py"
DEADLINE_S = 30.0
LOG_SHOWN = 8_000
"""Characters of each log's end."""
NOBODY = 64_999
"""No user of this machine."""
CONF = """[unix_http_server]
file={home}/run/supervisor.sock
chmod=0700
[supervisord]
logfile={home}/log/supervisord.log
pidfile={home}/run/supervisord.pid
nodaemon=true
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""
PROGRAM = """
[program:model-{name}]
command={command}
environment=IMAGEWORKS_STACK="{stack}",IMAGEWORKS_PROGRAM="model-{name}",{environment}
autostart=false
autorestart=false
startretries=0
startsecs=0
stopwaitsecs={stop_s}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={home}/log/model-{name}.log
"""


def eventually(probe: Callable[[], Any], what: str, seconds: float = DEADLINE_S) -> Any:
    """Ask `probe` until it says something true."""
    end = time.monotonic() + seconds
    while not (answer := probe()):
        assert time.monotonic() < end, f"never happened within {seconds:g} s: {what}"
        time.sleep(0.02)
    return answer


def listens(path: Path) -> bool:
    """Does somebody accept on this unix socket? The file alone is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


class Bench:
    """One stack folder with programs, a supervisord and a proxy, all of them processes."""

    def __init__(self, stack: Path, ports: Callable[[int], tuple[int, ...]]) -> None:
        self.stack, self.ports = stack, ports
        self.home = stack / ".imageworks"
        self.routes: dict[str, contract.Route] = {}
        self._conf = CONF.format(home=self.home)
        self._as: tuple[str, ...] = ()
        self._started: list[subprocess.Popen[bytes]] = []
        self.supervisor: subprocess.Popen[bytes] | None = None
        self.proxy: subprocess.Popen[bytes] | None = None
        self.port = 0

    # what there is

    def folder(self, name: str) -> Path:
        """Where a program keeps its ledger and is told what to do."""
        folder = self.stack / name
        folder.mkdir(exist_ok=True)
        return folder

    def route(self, name: str, port: int, **changes: Any) -> contract.Route:
        facts: dict[str, Any] = {
            "id": name,
            "backend": "openai",
            "program": f"model-{name}",
            "url": f"http://127.0.0.1:{port}",
            "served_name": f"served-{name}",
            "aliases": (),
            "capabilities": ("chat",),
            "quantization": None,
            "context": 2048,
            "concurrency": 8,
            "images_max": 0,
            "gpu_mib": {},
            "host_mib": 100,
            "grace_s": 600.0,
            "start_timeout_s": 20.0,
            "stop_timeout_s": 6.0,
            "pinned": False,
            "sampling": {},
            "needs": (),
        }
        return contract.Route(**(facts | changes))

    def program(self, name: str, *words: str, environment: str = 'X="1"', stop_s: int = 2, **changes: Any) -> Path:
        """A program and its route; `words` are its command, with PORT for its port. Returns its folder."""
        (port,) = self.ports(1)
        begin = ("/usr/bin/env",) if self._as else ()  # supervisord asks by access(2), which knows no capabilities
        command = " ".join(word.replace("PORT", str(port)) for word in (*begin, *words))
        self._conf += PROGRAM.format(
            name=name, command=command, stack=self.stack, environment=environment, home=self.home, stop_s=stop_s
        )
        self.routes[name] = self.route(name, port, **changes)
        return self.folder(name)

    def engine(self, name: str, mode: str, **changes: Any) -> Path:
        """A bad engine."""
        return self.program(
            name, sys.executable, str(BAD_ENGINE), "PORT", f"served-{name}", mode, str(self.folder(name)), **changes
        )

    def port_of(self, name: str) -> int:
        return int(self.routes[name].url.rpartition(":")[2])

    # processes

    def spawn(
        self, *words: str, environ: Mapping[str, str] | None = None, output: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """A process that ends with the test at the latest."""
        sink = subprocess.DEVNULL if output is None else output.open("ab")
        process = subprocess.Popen(
            [*self._as, *words], stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, **(environ or {})}
        )
        if output is not None:
            sink.close()  # type: ignore[union-attr]
        self._started.append(process)
        return process

    def bind(self, tool: Callable[[str], str]) -> None:
        """What is started from now on is somebody whom the kernel's limit of processes binds: it does not bind root."""
        if os.geteuid() == 0:
            own = f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"
            may = "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"  # its files are root's
            self._as = (tool("setpriv"), *own, *may)
            for folder in (self.stack, self.home, *self.home.iterdir()):
                os.chown(folder, NOBODY, NOBODY)

    def supervise(self) -> int:
        """Start supervisord; returns its pid once it listens."""
        path = self.stack / "supervisord.conf"
        path.write_text(self._conf)
        sock = self.home / "run" / "supervisor.sock"
        sock.unlink(missing_ok=True)
        self.supervisor = self.spawn(sys.executable, "-m", "supervisor.supervisord", "-c", str(path))
        eventually(lambda: listens(sock), "supervisord listens")
        return self.supervisor.pid

    def serve(
        self,
        policy: contract.Policy | None = None,
        *,
        gpus: tuple[contract.Gpu, ...] = (),
        leases: contract.Leases | None = None,
        environ: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> int:
        """Start the proxy over these programs; returns its pid once it is ready."""
        self.port = self.port or self.ports(1)[0]
        facts: dict[str, Any] = {
            "host": "127.0.0.1", "port": self.port, "body_limit_bytes": 1 << 20, "queue": 64, "queue_wait_s": 20.0,
            "drain_s": 2.0,
        }  # fmt: skip
        table = contract.RouteTable(
            stack="faults",
            profile="development",
            plan_hash="p" * 64,
            bundle_hash="b" * 64,
            proxy=contract.ProxySettings(**(facts | settings)),
            policy=policy or self.policy(),
            gpus=gpus,
            leases=leases or contract.Leases(),
            routes=self.routes,
            unplaced={},
            roles={"development": {}},
        )
        routes = self.stack / "routes.json"
        routes.write_text(contract.to_json(table))
        words = ["-m", "imageworks", "serve", "--routes", str(routes), "--stack", str(self.stack)]
        log = self.home / "log" / "proxy.log"
        self.proxy = self.spawn(sys.executable, *words, environ=environ, output=log)
        eventually(lambda: self.get("/readyz")[0] == 200 or self._died(log), "the proxy is ready")
        return self.proxy.pid

    def _died(self, log: Path) -> bool:
        assert self.proxy is not None
        assert self.proxy.poll() is None, log.read_text()
        return False

    def policy(self, *resident: str, interval_s: float = 30.0) -> contract.Policy:
        return contract.Policy("concurrent_limited", 8, 4096, resident, health_check_interval_s=interval_s)

    def left(self, program: str) -> tuple[int, ...]:
        """Processes of a program that still run."""
        return tuple(holder.pid for holder in processes.left_of(self.stack, f"model-{program}"))

    def ledger(self, name: str) -> list[int]:
        """Pids that hold "VRAM" according to the engine's ledger, among those that run."""
        path = self.folder(name) / "ledger"
        pids = [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []
        return [pid for pid in pids if processes.look(pid) is not None]

    def starts(self, name: str) -> int:
        path = self.folder(name) / "starts"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def close(self) -> None:
        for process in reversed(self._started):
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(20)
        for holder in processes.marked({"IMAGEWORKS_STACK": str(self.stack)}):
            processes.send(holder, signal.SIGKILL)

    # HTTP

    def get(self, path: str) -> tuple[int, Any]:
        return self._ask("GET", path)

    def post(self, path: str, body: object) -> tuple[int, Any]:
        return self._ask("POST", path, json.dumps(body).encode())

    def chat(self, model: str, **more: Any) -> tuple[int, Any]:
        return self.post(
            "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": "x"}], **more}
        )

    def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            text = response.read()
        except OSError:
            return 0, None
        finally:
            connection.close()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text.decode()

    @contextmanager
    def stream(self, model: str) -> Iterator[http.client.HTTPResponse]:
        """A streaming request whose head has come."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "x"}]}
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
            with connection.getresponse() as response:
                yield response
        finally:
            connection.close()

    @contextmanager
    def sent(self, model: str) -> Iterator[None]:
        """A request that went in; its client leaves at the end, whatever came."""
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "x"}]}).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
        )
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            yield

    def state(self, model: str) -> str:
        _, answer = self.get("/running")
        return next((row["state"] for row in answer["running"] if row["model"] == model), "stopped")

    def health(self, model: str) -> dict[str, Any]:
        _, answer = self.get("/v1/models/health")
        found: dict[str, Any] = next(row for row in answer["models"] if row["model"] == model)
        return found

    # drivers, in this process

    @asynccontextmanager
    async def drivers(self, readings: Readings | None = None) -> AsyncIterator[Mapping[str, Any]]:
        async with aiohttp.ClientSession() as session:
            drivers = Drivers(self.routes, self.stack, "supervisord", session, readings)
            try:
                yield drivers.by_model
            finally:
                await drivers.close()

    def play(self, story: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(DEADLINE_S):
                await story

        asyncio.run(bounded())


def readings_of(*ledgers: Path, slot: int = 0, total_mib: int = 24_000, named: bool = True) -> Readings:
    """GPU memory as the ledgers (JSON: owner -> MiB) say; `named`: the card tells pids, as it does outside containers."""

    async def look() -> Mapping[int, Reading | None]:
        rows: dict[str, int] = {}
        for path in ledgers:
            rows |= json.loads(path.read_text()) if path.exists() else {}
        pids = {int(owner): mib for owner, mib in rows.items() if owner.isdecimal()} if named else {}
        return {slot: Reading(total_mib, sum(rows.values()), None, pids)}

    return look


@pytest.fixture
def bench(free_ports: Callable[[int], tuple[int, ...]]) -> Iterator[Bench]:
    folder = Path(tempfile.mkdtemp(prefix="iw"))
    for name in ("run", "log"):
        (folder / ".imageworks" / name).mkdir(parents=True)
    made = Bench(folder, free_ports)
    yield made
    made.close()
    for log in sorted(made.home.glob("log/*.log")):  # shown where the test failed
        print(f"--- {log.name}\n{log.read_text(errors='replace')[-LOG_SHOWN:]}")  # noqa: T201
    shutil.rmtree(folder)
