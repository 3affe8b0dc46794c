"""What the proxy adds to one request: the same requests straight to a mock engine and through the proxy, in one run.

Engine, proxy and client are three processes on loopback; direct and proxied requests alternate, so that a busy
machine disturbs both alike. Prints median and 95th percentile; exits 1 when the median overhead of a short answer
is above the goal. `python benchmarks/proxy_overhead.py [--requests 1000] [--json]`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from imageworks import contract

GOAL_MS = 2.0
WARM_UP = 100
CHUNKS = 20
KINDS = {
    "short": {"model": "mock", "messages": [{"role": "user", "content": "hi"}]},
    "stream": {"model": "mock", "stream": True, "messages": [{"role": "user", "content": "hi"}]},
    "image_1MiB": {
        "model": "mock",
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "image_url",
                        "image_url": {
                            "url": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1Pe"
                            + "A" * (1 << 20)
                        },
                    }
                ],
            }
        ],
    },
}
SERVE = (
    "import sys; from pathlib import Path; from imageworks.runtime.start import serve; "
    "sys.exit(serve(Path(sys.argv[1]), Path(sys.argv[2]), 'supervisord'))"
)


def engine(port: int) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    short = json.dumps(
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}}], "usage": usage}
    ).encode()
    piece = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'

    async def answer(request: web.Request) -> web.StreamResponse:
        if b'"stream":true' not in (await request.read()).replace(b" ", b""):
            return web.Response(body=short, content_type="application/json")
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        for _ in range(CHUNKS):
            await stream.write(piece)
        await stream.write(b"data: [DONE]\n\n")
        return stream

    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/v1/chat/completions", answer)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


def routes(engine_port: int, port: int) -> str:
    route = contract.Route(
        id="mock", backend="openai", program=None, url=f"http://127.0.0.1:{engine_port}", served_name="mock", aliases=(),
        capabilities=("chat", "vision"), quantization=None, context=2048, concurrency=64, images_max=4, gpu_mib={}, host_mib=0,
        grace_s=600.0, start_timeout_s=60.0, stop_timeout_s=10.0, pinned=False, sampling={"temperature": 0.2}, needs=(),
    )  # fmt: skip
    settings = contract.ProxySettings("127.0.0.1", port, 64 << 20, 64, 60.0, 5.0)
    policy = contract.Policy("concurrent_limited", 1, 4096, ())
    table = contract.RouteTable(
        "bench", "bench", "0" * 64, "0" * 64, settings, policy, (), {"mock": route}, {}, {"bench": {}}
    )
    return contract.to_json(table)


async def one(http: aiohttp.ClientSession, url: str, body: bytes) -> float:
    begin = time.perf_counter()
    async with http.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 200, await answer.text()
        await answer.read()
    return (time.perf_counter() - begin) * 1000


async def until_up(http: aiohttp.ClientSession, url: str, body: bytes) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await one(http, url, body)
            except aiohttp.ClientError:
                await asyncio.sleep(0.02)
            else:
                return


async def measure(ports: list[int], requests: int) -> dict[str, dict[str, float]]:
    urls = [f"http://127.0.0.1:{port}/v1/chat/completions" for port in ports]
    found = {}
    async with aiohttp.ClientSession() as http:
        for kind, ask in KINDS.items():
            body = json.dumps(ask).encode()
            for url in urls:
                await until_up(http, url, body)
            for _ in range(WARM_UP):
                await one(http, urls[1], body)
            times = [(await one(http, urls[0], body), await one(http, urls[1], body)) for _ in range(requests)]
            found[kind] = summary([direct for direct, _ in times], [proxied for _, proxied in times])
    return found


def summary(direct: list[float], proxied: list[float]) -> dict[str, float]:
    p95 = [statistics.quantiles(times, n=20)[-1] for times in (direct, proxied)]
    median = [statistics.median(times) for times in (direct, proxied)]
    return {
        "direct_median_ms": round(median[0], 3),
        "proxied_median_ms": round(median[1], 3),
        "overhead_median_ms": round(median[1] - median[0], 3),
        "overhead_p95_ms": round(p95[1] - p95[0], 3),
        "ratio": round(median[1] / median[0], 2),
    }


def run(requests: int) -> dict[str, dict[str, float]]:
    engine_port, port = free_ports(2)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        path = Path(folder, "routes.json")
        path.write_text(routes(engine_port, port))
        log = running.enter_context(Path(folder, "proxy.log").open("wb"))
        commands: list[list[Any]] = [
            [sys.executable, __file__, "--engine", str(engine_port)],
            [sys.executable, "-c", SERVE, str(path), folder],
        ]
        for command in commands:
            process = subprocess.Popen(command, stderr=log)
            running.callback(process.wait)
            running.callback(process.terminate)
        return asyncio.run(measure([engine_port, port], requests))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--engine", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        engine(options.engine)
        return 0
    found = run(options.requests)
    if options.json:
        print(json.dumps({"requests": options.requests, "goal_ms": GOAL_MS, "kinds": found}, indent=2))
    else:
        for kind, row in found.items():
            print(f"{kind:>11}: " + "  ".join(f"{name} {value}" for name, value in row.items()))
    return 0 if found["short"]["overhead_median_ms"] < GOAL_MS else 1


if __name__ == "__main__":
    sys.exit(main())
