"""What scripts/gpu-check does: a stack for this very machine, leases around real allocations, and hard ends.

Each check prints a line and what it measured; the result is JSON (--out), made for docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HOLDER = Path(__file__).with_name("gpu_holder.py")
MODEL_MIB, LEASE_MIB = 2048, 3072
TOLERANCE_MIB, HEADROOM_MIB = 256, 1024
LONGEST_S = 60.0
STACK = """\
version: 1
name: gpu-check
ports: {{first: {first}, last: {last}}}
proxy: {{bind: "127.0.0.1:{proxy}", limits: {{queue_wait: 10s}}}}
defaults: {{grace: 1h, start_timeout: 60s}}
leases: {{ttl: 5s, min_residency: 0s}}
profiles:
  here: {{match: {{gpus: {gpus}, vram: ">={low}MiB <{high}MiB"}}, headroom: 1GiB, max_concurrent_models: 2, strategy: concurrent_limited}}
models:
  steady:
    backend: openai
    command: ["{python}", "{holder}", serve, "{mib}", "${{port}}", "${{name}}"]
    capabilities: [chat]
    placement: gpu
    vram: {{total: {need}MiB, because: "what scripts/gpu_holder.py takes, and a context"}}
    roles: {{chat: 50}}
{env}roles:
  chat: {{requires: [chat], may_be_missing_on: [development]}}
"""


class CheckError(Exception):
    """A check did not hold."""


class Machine:
    """The stack that runs, as seen from outside: HTTP and NVML."""

    def __init__(self, folder: Path, port: int, environ: Mapping[str, str]) -> None:
        self.folder, self.port, self.environ = folder, port, dict(environ)

    def get(self, path: str) -> Any:
        """GET a path of the proxy."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, body: object) -> tuple[int, Any]:
        """POST; the status and the answer."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=LONGEST_S) as answer:  # noqa: S310 - our own address
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError as error:
            raise CheckError(f"the proxy did not answer: {error}") from None

    def gpu(self) -> dict[str, Any]:
        """The first GPU as the scheduler sees it."""
        found: dict[str, Any] = self.get("/v1/gpu/status")["gpus"][0]
        return found

    def leases(self) -> list[dict[str, Any]]:
        """All leases."""
        found: list[dict[str, Any]] = self.get("/v1/gpu/status")["leases"]
        return found

    def state(self, model: str = "steady") -> str:
        """The model's residency."""
        rows = {row["model"]: row["state"] for row in self.get("/running")["running"]}
        return str(rows.get(model, "stopped"))

    def ask(self) -> None:
        """One request to the model. Raises CheckError."""
        status, answer = self.post(
            "/v1/chat/completions", {"model": "steady", "messages": [{"role": "user", "content": "x"}]}
        )
        if status != 200:  # noqa: PLR2004 - HTTP's word for it
            raise CheckError(f"the model answered {status}: {answer}")

    @contextmanager
    def holding(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """`imageworks lease run` around a holder, once it holds."""
        command = [
            sys.executable,
            "-m",
            "imageworks",
            "lease",
            "run",
            "--vram",
            f"{LEASE_MIB}MiB",
            "--wait",
            "60s",
            *words,
        ]
        program = subprocess.Popen(command, cwd=self.folder, env=self.environ, text=True, stdout=subprocess.PIPE)
        try:
            if program.stdout is None or program.stdout.readline().strip() != "holding":
                raise CheckError(f"the holder did not begin: exit {program.wait()}")
            yield program
        finally:
            program.kill()
            program.wait()


def until(what: str, holds: Callable[[], bool], longest_s: float = LONGEST_S) -> float:
    """Seconds until `holds`. Raises CheckError."""
    begin = time.monotonic()
    while not holds():
        if time.monotonic() - begin > longest_s:
            raise CheckError(f"{what}: not within {longest_s:g} s")
        time.sleep(0.02)
    return time.monotonic() - begin


def holder(mib: int, *words: str) -> list[str]:
    """The command of a process that holds memory."""
    return ["--", sys.executable, str(HOLDER), "hold", str(mib), *words]


def measured(machine: Machine) -> dict[str, Any]:
    """A model's real memory is seen; a lease beside it is counted."""
    machine.ask()
    until("the model's memory is seen", lambda: (machine.gpu()["used_mib"] or 0) >= MODEL_MIB)
    with machine.holding(*holder(LEASE_MIB)):
        took_s = until("the lease's memory is seen", lambda: machine.gpu()["used_mib"] >= MODEL_MIB + LEASE_MIB)
        gpu = machine.gpu()
    return {"used_mib": gpu["used_mib"], "held_mib": gpu["held_mib"], "seen_after_s": round(took_s, 3)}


def exclusive(machine: Machine) -> dict[str, Any]:
    """An exclusive lease evicts the model; when it ends, the model is back."""
    machine.ask()
    with machine.holding("--exclusive", *holder(LEASE_MIB)):
        if machine.state() == "ready":
            raise CheckError("the model stayed beside an exclusive lease")
    back_s = until("the model is back", lambda: machine.state() == "ready")
    return {"model_back_after_s": round(back_s, 3)}


def hard_end(machine: Machine) -> dict[str, Any]:
    """Kill -9 of a parent whose children hold the memory: the lease ends when the bytes are really back."""
    machine.ask()
    until("the model's memory is seen", lambda: machine.gpu()["used_mib"] >= MODEL_MIB)
    before = machine.gpu()["used_mib"]
    with machine.holding(*holder(LEASE_MIB // 3, "--children", "2", "--detached")) as program:
        until("the children hold", lambda: machine.gpu()["used_mib"] >= before + LEASE_MIB // 3 * 2)
        pid = next(lease["pid"] for lease in machine.leases())
        os.kill(pid or program.pid, signal.SIGKILL)
        free_s = until("the lease is free", lambda: not machine.leases())
        left = machine.gpu()["used_mib"] - before
    if left > TOLERANCE_MIB:
        raise CheckError(f"the lease was given back with {left} MiB still in use")
    return {"free_after_s": round(free_s, 3), "left_mib": left}


def killed_model(machine: Machine) -> dict[str, Any]:
    """Kill -9 of the model's process: it is noticed, and the next request loads it again."""
    machine.ask()
    pids = subprocess.run(["pgrep", "-f", f"{HOLDER} serve"], capture_output=True, text=True, check=True).stdout.split()
    for pid in pids:
        os.kill(int(pid), signal.SIGKILL)
    noticed_s = until("its end is noticed", lambda: machine.state() != "ready")
    begin = time.monotonic()
    machine.ask()
    return {"noticed_after_s": round(noticed_s, 3), "answers_after_s": round(time.monotonic() - begin, 3)}


def foreign(machine: Machine) -> dict[str, Any]:
    """Memory that somebody else takes, beyond the headroom that is kept for them, is given to nobody until they leave."""
    free = machine.gpu()["free_mib"]
    stranger = subprocess.Popen([sys.executable, str(HOLDER), "hold", str(LEASE_MIB)], env=machine.environ)
    try:
        shrunk_s = until(
            "grants shrink", lambda: machine.gpu()["free_mib"] <= free - LEASE_MIB + HEADROOM_MIB + TOLERANCE_MIB
        )
        less = free - machine.gpu()["free_mib"]
    finally:
        stranger.kill()
        stranger.wait()
    until("grants grow again", lambda: machine.gpu()["free_mib"] >= free - TOLERANCE_MIB)
    return {"shrunk_by_mib": less, "after_s": round(shrunk_s, 3)}


CHECKS = (measured, exclusive, hard_end, killed_model, foreign)


def detect() -> tuple[list[int], dict[str, Any]]:
    """MiB of each GPU by NVML, and what is told of the machine. Raises CheckError without a GPU."""
    import pynvml  # noqa: PLC0415 - only here

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        sizes = [int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) >> 20 for handle in handles]
        names = [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    except pynvml.NVMLError as error:
        raise CheckError(f"no GPU: {error}") from None
    if not sizes:
        raise CheckError("no GPU")
    return sizes, {"gpus": names, "mib": sizes}


def free_ports(count: int) -> list[int]:
    """Ports in a row that nobody listens on."""
    for first in range(26000, 32000, 50):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return list(range(first, first + count))
    raise CheckError("no free ports")


@contextmanager
def running(sizes: list[int], environ: Mapping[str, str]) -> Iterator[Machine]:
    """The stack of this machine, up; down in the end."""
    ports = free_ports(6)
    passed = [f'      {name}: "{environ[name]}"' for name in ("GPU_HOLDER_LEDGER",) if name in environ]
    env = "    env:\n" + "\n".join(passed) + "\n" if passed else ""
    with tempfile.TemporaryDirectory(prefix="gpu-check-", dir="/tmp") as name:
        folder = Path(name)
        (folder / "stack.yaml").write_text(
            STACK.format(
                first=ports[1], last=ports[-1], proxy=ports[0], gpus=len(sizes), low=min(sizes) - 1, high=max(sizes) + 1,
                python=sys.executable, holder=HOLDER, mib=MODEL_MIB, need=MODEL_MIB + 600, env=env,
            ), "utf-8",
        )  # fmt: skip
        log = (folder / "up.log").open("w")
        up = subprocess.Popen(
            [sys.executable, "-m", "imageworks", "up"], cwd=folder, env=dict(environ), stdout=log, stderr=log
        )
        machine = Machine(folder, ports[0], environ)
        try:
            until("the proxy is ready", lambda: _ready(machine, up, folder))
            yield machine
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(60)
            log.close()


def _ready(machine: Machine, up: subprocess.Popen[bytes], folder: Path) -> bool:
    if up.poll() is not None:
        raise CheckError(f"imageworks up ended: {(folder / 'up.log').read_text('utf-8')[-2000:]}")
    try:
        return bool(machine.get("/readyz")["ready"]) and machine.gpu()["used_mib"] is not None
    except (OSError, KeyError):
        return False


def main() -> int:
    """Run all checks; 0 when each held."""
    parser = argparse.ArgumentParser(description="Prove leases on this machine's real GPU.")
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    parser.add_argument("checks", nargs="*", choices=[[], *(check.__name__ for check in CHECKS)], help="only these")
    asked = parser.parse_args()
    result: dict[str, Any] = {"schema": 1, "checks": {}}
    try:
        sizes, machine_facts = detect()
        result |= machine_facts
        with running(sizes, os.environ) as machine:
            result["profile"] = machine.get("/v1/config/profile")["profile"]
            for check in [item for item in CHECKS if not asked.checks or item.__name__ in asked.checks]:
                try:
                    result["checks"][check.__name__] = {"held": True, **check(machine)}
                except CheckError as error:
                    result["checks"][check.__name__] = {"held": False, "why": str(error)}
                print(f"{check.__name__:14} {result['checks'][check.__name__]}", flush=True)
    except CheckError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 1
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    return 0 if all(item["held"] for item in result["checks"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
