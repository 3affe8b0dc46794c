"""Leases around real commands: the real supervisord and proxy, the real nvidia-ml-py over a stand-in for the driver."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imageworks.commands.running import Running
from imageworks.runtime import processes

from .conftest import StackFolder, eventually

pytestmark = pytest.mark.e2e
ENGINE = Path(__file__).parents[1] / "tools" / "bad_engine.py"
FOREVER = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


class Leased(StackFolder):
    """One GPU of 4 GiB, and a model that takes 1000 MiB of it; what the model's processes hold is what NVML shows."""

    def __init__(self, folder: Path, ports: tuple[int, ...], library: Path) -> None:
        super().__init__(folder, ports)
        self.engine, self.library = folder / "engine", folder / "driver"
        self.engine.mkdir()
        self.library.mkdir()
        shutil.copy(library / "libnvidia-ml.so.1", self.library)
        (self.library / "state").write_text(f"gpu 4096 -1 8 9 GPU-e2e Card\nmore {self.engine}\n")
        (folder / "stack.yaml").write_text(
            f"""version: 1
name: leases
profiles:
  card: {{match: {{gpus: 1, vram: ">=3.5GiB <5GiB"}}, headroom: 512MiB, grace: 1h}}
models:
  small:
    backend: openai
    command: [{sys.executable}, {ENGINE}, "${{port}}", "${{name}}", serve, {self.engine}]
    vram: {{total: 1000MiB, because: "what the engine says it holds"}}
    roles: {{chat: 20}}
    pin: {{port: {{value: {self.model_ports[0]}, because: "tests choose free ports"}}}}
leases: {{min_residency: 0s}}
proxy: {{bind: "127.0.0.1:{self.port}"}}
""",
            encoding="utf-8",
        )

    def environ(self) -> dict[str, str]:
        return {
            **super().environ(),
            "IMAGEWORKS_DEPLOYMENT_PROFILE": "card",
            "LD_LIBRARY_PATH": str(self.library),
        }

    def chat(self) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        body = {"model": "small", "messages": [{"role": "user", "content": "x"}]}
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
            return connection.getresponse().status
        finally:
            connection.close()

    def leases(self) -> list[dict[str, Any]]:
        status, answer = self.get("/v1/gpu/status")
        return list(answer["leases"]) if status == 200 else [{"state": "unknown"}]

    def lease(self, *words: str) -> subprocess.Popen[str]:
        """`imageworks lease run …` as a process."""
        return subprocess.Popen(
            [sys.executable, "-m", "imageworks", "lease", "run", "--vram", "2GiB", *words],
            cwd=self.folder,
            env=self.environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def starts(self) -> int:
        return len((self.engine / "starts").read_text().splitlines())


@pytest.fixture
def leased(
    tmp_path: Path, free_ports: Callable[[int], tuple[int, ...]], nvml_library: Path
) -> Iterator[tuple[Leased, Callable[..., subprocess.Popen[str]]]]:
    """The stack is up, its model is loaded; and a way to hold leases, whose processes end with the test."""
    stack = Leased(tmp_path, free_ports(4), nvml_library)
    started: list[subprocess.Popen[str]] = []

    def lease(*words: str) -> subprocess.Popen[str]:
        started.append(stack.lease(*words))
        return started[-1]

    try:
        done = stack.run("up", "-d")
        assert done.returncode == 0, done.stderr
        assert stack.chat() == 200
        eventually(lambda: stack.get("/v1/gpu/status")[1]["gpus"][0]["used_mib"] == 1000, "its bytes are measured")
        yield stack, lease
    finally:
        for process in started:
            process.kill()
            process.communicate()
        stack.run("down")
    eventually(lambda: not stack.processes(), "every process of the stack is gone")


Held = tuple[Leased, Callable[..., subprocess.Popen[str]]]


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def restored(stack: Leased) -> bool:
    return stack.leases() == [] and stack.state("small") == "ready"


def test_a_second_exclusive_job_waits_for_the_end_of_the_first(leased: Held) -> None:
    stack, lease = leased
    go = stack.folder / "go"
    code = f"import pathlib, time\nprint(1, flush=True)\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)"
    first = lease("--exclusive", "--reason", "first job", "--", sys.executable, "-c", code)
    assert line(first) == "1"
    assert stack.state("small") == "stopped"
    second = lease("--exclusive", "--wait", "60s", "--", sys.executable, "-c", "print(2, flush=True)")
    assert second.stderr is not None
    assert "waiting up to 60 s" in second.stderr.readline()
    eventually(lambda: stack.get("/v1/gpu/status")[1]["waiting"], "the second waits")
    assert [each["reason"] for each in stack.leases()] == ["first job"]
    hurried = lease("--exclusive", "--wait", "0", "--", "true")
    assert hurried.wait(30) == 75
    assert "first job" in stack.run("status").stdout
    go.touch()
    assert line(second) == "2"
    assert (first.wait(30), second.wait(30)) == (0, 0)
    eventually(lambda: restored(stack), "the model that was there is back")
    assert stack.starts() == 2


@pytest.mark.parametrize("victim", ["command", "wrapper"])
def test_a_kill_frees_the_lease_and_the_model_comes_back(leased: Held, victim: str) -> None:
    stack, lease = leased
    wrapper = lease("--exclusive", "--", sys.executable, "-c", FOREVER)
    child = processes.identity(int(line(wrapper)))
    assert child is not None
    assert len(stack.leases()) == 1
    os.kill(child.pid if victim == "command" else wrapper.pid, signal.SIGKILL)
    assert wrapper.wait(30) == (128 + signal.SIGKILL if victim == "command" else -signal.SIGKILL)
    eventually(lambda: restored(stack), "the lease is free and the model is back")
    assert not processes.alive(child)


def test_a_kill_of_the_proxy_ends_no_job_and_the_model_still_comes_back(leased: Held) -> None:
    stack, lease = leased
    wrapper = lease("--exclusive", "--ttl", "3s", "--", sys.executable, "-c", FOREVER)
    child = processes.identity(int(line(wrapper)))
    assert child is not None
    (held,) = stack.leases()
    proxy = Running(stack.folder).program("imageworks-proxy").pid
    os.kill(proxy, signal.SIGKILL)
    eventually(lambda: stack.get("/readyz")[0] == 200, "supervisord starts the proxy again")
    (kept,) = stack.leases()
    assert (kept["lease_id"], kept["token"]) == (held["lease_id"], held["token"])
    over = time.monotonic() + 4
    eventually(lambda: time.monotonic() > over, "its ttl is over")
    assert [each["lease_id"] for each in stack.leases()] == [held["lease_id"]]  # the wrapper found the new proxy
    assert processes.alive(child)
    os.kill(child.pid, signal.SIGTERM)
    assert wrapper.wait(30) == 128 + signal.SIGTERM
    eventually(lambda: restored(stack), "the lease is free and the model is back")


def test_a_command_that_reads_its_token_may_use_the_model_inside_its_lease(leased: Held) -> None:
    stack, lease = leased
    code = """import http.client, json, os, sys
connection = http.client.HTTPConnection(os.environ["IMAGEWORKS_URL"].removeprefix("http://"))
headers = {"Content-Type": "application/json", "X-GPU-Lease-Token": os.environ["IMAGEWORKS_LEASE_TOKEN"]}
body = json.dumps({"model": "small", "messages": [{"role": "user", "content": "x"}]})
connection.request("POST", "/v1/chat/completions", body, headers)
print(connection.getresponse().status, os.environ["CUDA_VISIBLE_DEVICES"])
"""
    job = lease("--exclusive", "--", sys.executable, "-c", code)
    out, err = job.communicate(timeout=60)
    assert (job.returncode, out.split()) == (0, ["200", "GPU-e2e"]), err
    eventually(lambda: restored(stack), "the lease is free and the model is there")
