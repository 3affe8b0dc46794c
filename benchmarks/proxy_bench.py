"""What the proxy costs beside HAProxy and nginx: CPU per request, per relayed chunk, per 8 MB body, and added latency.

A mock engine and a load generator in C (benchmarks/proxy, compiled on the first run) on one core, the proxy on the
other, all on loopback. Every round runs each case on every target one after the other, in turning order, so that a busy
machine disturbs all alike; ratios are taken within a round, then the median. HAProxy and nginx run when they are
installed; `naive` is thirty lines of aiohttp. Leases, telemetry and routing are on, as always.

`python benchmarks/proxy_bench.py [--rounds 5] [--write]`: --write puts the tables into docs/performance.md. LiteLLM and
vllm-router take part where `--litellm` and `--vllm-router` name their programs (PyPI: `litellm[proxy]`, `vllm-router`, each
in an environment of its own). Exits 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from proxy_overhead import SERVE, free_ports, routes  # type: ignore[import-not-found]  # the script beside this one

HERE = Path(__file__).parent / "proxy"
DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- proxy:begin -->", "<!-- proxy:end -->"
SETTLE_S = 0.3
CASES: Mapping[str, tuple[str, float]] = {
    "short, C=1": ("-c 1", 1.0),
    "short, C=64": ("-c 64", 1.5),
    "streams, C=64, 10 ms a chunk": ("-c 64 -s 50 -D 10000", 1.5),
    "streams, C=1000, 50 ms a chunk": ("-c 1000 -s 20 -D 50000", 2.5),
    "8 MB bodies, C=1": ("-c 1 -b 8000000", 1.5),
    "8 MB bodies, C=4": ("-c 4 -b 8000000", 1.5),
}
GOALS: Mapping[str, tuple[str, float]] = {
    "short, C=64": ("cpu_us_request", 1.5),
    "streams, C=64, 10 ms a chunk": ("cpu_us_chunk", 1.4),
    "8 MB bodies, C=1": ("cpu_us_request", 1.5),
}


RATES: Mapping[str, float] = {"vllm-router": 2, "LiteLLM": 300, "llama-swap": 8}
"""How many times their requests per second ours are to be, short answers at C=64."""
RATED = "short, C=64"
LLAMA_SWAP_OF_NAIVE = 0.70
"""llama-swap is in no package index: its rate by the naive proxy's, measured elsewhere (0bdb3720, Go 1.27.3)."""
LITELLM = """model_list:
  - {model_name: bench, litellm_params: {model: openai/bench, api_base: "http://127.0.0.1:@MOCK@/v1", api_key: none}}
litellm_settings: {telemetry: false, request_timeout: 600}
general_settings: {dangerously_permit_weak_or_unset_master_key: true}
"""


@dataclass(frozen=True)
class Target:
    """One proxy. `command` None: straight to the mock engine. `peer`: takes part in RATED only, `slower` times as long."""

    name: str
    port: int
    command: Sequence[str] | None
    peer: bool = False
    slower: float = 1


def compiled(name: str, folder: Path) -> Path:
    program = folder / name
    subprocess.run(["cc", "-O2", "-o", program, HERE / f"{name}.c"], check=True)
    return program


def routes_file(folder: Path, engine: int, port: int) -> Path:
    table = json.loads(routes(engine, port))
    route = {**table["routes"].pop("mock"), "id": "bench", "served_name": "bench", "concurrency": 4096, "sampling": {}}
    table["routes"] = {"bench": route}
    table["proxy"]["queue"] = 4096
    path = folder / "routes.json"
    path.write_text(json.dumps(table))
    return path


def configured(name: str, folder: Path, port: int, engine: int) -> Path:
    path = folder / name
    text = (HERE / name).read_text()
    path.write_text(text.replace("@PORT@", str(port)).replace("@MOCK@", str(engine)).replace("@FOLDER@", str(folder)))
    return path


def peers(folder: Path, engine: int, programs: Mapping[str, str]) -> list[Target]:
    first, second, third = free_ports(3)
    found = []
    if program := programs["LiteLLM"]:
        file = folder / "litellm.yaml"
        file.write_text(LITELLM.replace("@MOCK@", str(engine)))
        quiet = ("LITELLM_MODE=PRODUCTION", "LITELLM_LOG=ERROR", "LITELLM_LOCAL_MODEL_COST_MAP=True")
        command = ["env", *quiet, program, "--config", str(file), "--host", "127.0.0.1", "--port", str(first), "--num_workers", "1"]  # fmt: skip
        found.append(Target("LiteLLM", first, command, peer=True, slower=5))
    if program := programs["vllm-router"]:
        own = ["--host", "127.0.0.1", "--port", str(second), "--prometheus-port", str(third), "--log-level", "error"]
        command = [program, *own, "--worker-urls", f"http://127.0.0.1:{engine}", "--policy", "round_robin"]
        found.append(Target("vllm-router", second, command, peer=True))
    return found


def targets(folder: Path, engine: int) -> list[Target]:
    ports = free_ports(5)
    serve = [sys.executable, "-c", SERVE, str(routes_file(folder, engine, ports[0])), str(folder)]
    found = [Target("direct", engine, None), Target("imageworks", ports[0], serve)]
    naive = [sys.executable, str(HERE / "naive.py"), str(ports[1]), f"http://127.0.0.1:{engine}"]
    found.append(Target("naive aiohttp", ports[1], naive))
    if program := _installed("haproxy"):
        found.append(Target("HAProxy", ports[2], [program, "-q", "-db", "-f", str(configured("haproxy.cfg", folder, ports[2], engine))]))  # fmt: skip
    if program := _installed("nginx"):
        file = configured("nginx.conf", folder, ports[3], engine)
        found.append(Target("nginx", ports[3], [program, "-p", str(folder), "-c", str(file), "-e", str(folder / "nginx.log")]))  # fmt: skip
    return found


def _installed(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


@contextmanager
def running(command: Sequence[str | Path], core: int, folder: Path) -> Iterator[int]:
    pin = ["taskset", "-c", str(core)] if shutil.which("taskset") and (os.cpu_count() or 1) > 1 else []
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([*pin, *command], stdout=log, stderr=log, start_new_session=True)
        try:
            yield process.pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(15)


def first_answer_s(port: int, begin: float) -> float:
    """Seconds from `begin` to the first 200."""
    body = json.dumps({"model": "bench", "messages": [{"role": "user", "content": "hi"}]})
    while time.perf_counter() - begin < 90:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            connection.close()
            if answer.status == 200:
                return time.perf_counter() - begin
        time.sleep(0.003)
    raise TimeoutError(f"nobody answers on port {port}")


def tree(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            found += map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split())
    return found


def cpu_ns(pid: int) -> int:
    """Time on a processor of all threads of a process tree, proc(5) schedstat."""
    total = 0
    for each in tree(pid):
        for thread in Path(f"/proc/{each}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((thread / "schedstat").read_text().split()[0])
    return total


def rss_mib(pid: int) -> float:
    pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in tree(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def measure(generator: Path, target: Target, pid: int | None, arguments: str, seconds: float) -> dict[str, Any]:
    before = cpu_ns(pid) if pid else 0
    pin = ["taskset", "-c", "1"] if shutil.which("taskset") and (os.cpu_count() or 1) > 1 else []
    command = [
        *pin,
        str(generator),
        "-p",
        str(target.port),
        "-w",
        "0.2",
        "-d",
        str(seconds),
        "-t",
        "8",
        *arguments.split(),
    ]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    time.sleep(SETTLE_S)
    spent_us = ((cpu_ns(pid) if pid else 0) - before) / 1000
    found["cpu_us_request"] = spent_us / found["ok"] if pid and found["ok"] else None
    found["cpu_us_chunk"] = spent_us / found["chunks_all"] if pid and found["chunks_all"] else None
    found["rss_mib"] = rss_mib(pid) if pid else None
    return found


Results = dict[tuple[str, str], list[dict[str, Any]]]


def run(
    rounds: int, names: Sequence[str], programs: Mapping[str, str]
) -> tuple[Results, dict[str, dict[str, float]], list[str]]:
    results: Results = {}
    starts: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mock, generator = compiled("mock", folder), compiled("lg", folder)
        (engine,) = free_ports(1)
        found = [target for target in targets(folder, engine) if not names or target.name in names]
        found += peers(folder, engine, programs)
        for number in range(rounds):
            with ExitStack() as stack:
                stack.enter_context(running([mock, str(engine)], 1, folder))
                first_answer_s(engine, time.perf_counter())
                pids: dict[str, int | None] = {}
                for target in found:
                    begin = time.perf_counter()
                    pid = stack.enter_context(running(target.command, 0, folder)) if target.command else None
                    pids[target.name] = pid
                    took = first_answer_s(target.port, begin)
                    if pid and not target.peer:
                        time.sleep(SETTLE_S)
                        facts = starts.setdefault(target.name, {"first answer s": [], "idle MiB": []})
                        facts["first answer s"].append(took)
                        facts["idle MiB"].append(rss_mib(pid))
                for place, (case, (arguments, seconds)) in enumerate(CASES.items()):
                    turn = (number + place) % len(found)
                    for target in [*found[turn:], *found[:turn]]:
                        if target.peer and case != RATED:
                            continue
                        row = measure(generator, target, pids[target.name], arguments, seconds * target.slower)
                        results.setdefault((target.name, case), []).append(row)
    medians = {
        name: {fact: statistics.median(values) for fact, values in facts.items()} for name, facts in starts.items()
    }
    return results, medians, [target.name for target in found if not target.peer]


def middle(results: Results, name: str, case: str, value: Callable[[dict[str, Any]], float | None]) -> float | None:
    values = [each for row in results.get((name, case), []) if (each := value(row)) is not None]
    return statistics.median(values) if values else None


def ratio(results: Results, case: str, fact: str, name: str, other: str) -> float | None:
    pairs = zip(results.get((name, case), []), results.get((other, case), []), strict=False)
    values = [mine[fact] / theirs[fact] for mine, theirs in pairs if mine[fact] and theirs[fact]]
    return statistics.median(values) if values else None


def table(results: Results, starts: Mapping[str, Mapping[str, float]], names: Sequence[str], rounds: int) -> str:
    def shown(value: float | None, digits: int = 0) -> str:
        return "-" if value is None else f"{value:,.{digits}f}"

    lines = [
        f"Medians of {rounds} interleaved rounds, ratios within a round. {machine()}",
        "",
        "| case | figure | " + " | ".join(names) + " | ours / HAProxy | goal |",
        "|---|---|" + "---|" * (len(names) + 2),
    ]
    figures: list[tuple[str, str, Callable[[dict[str, Any]], float | None], str | None, int]] = [
        ("short, C=64", "requests/s", lambda row: row["rps"], "rps", 0),
        ("short, C=64", "CPU µs/request", lambda row: row["cpu_us_request"], "cpu_us_request", 1),
        ("short, C=1", "latency p50 µs", lambda row: row["lat"]["p50"], None, 0),
        ("streams, C=64, 10 ms a chunk", "CPU µs/chunk", lambda row: row["cpu_us_chunk"], "cpu_us_chunk", 1),
        ("streams, C=64, 10 ms a chunk", "first event p50 µs", lambda row: row["ttft"]["p50"], None, 0),
        ("streams, C=1000, 50 ms a chunk", "CPU µs/chunk", lambda row: row["cpu_us_chunk"], "cpu_us_chunk", 1),
        ("streams, C=1000, 50 ms a chunk", "errors", lambda row: row["errors"], None, 0),
        ("8 MB bodies, C=1", "CPU µs/request", lambda row: row["cpu_us_request"], "cpu_us_request", 0),
        ("8 MB bodies, C=4", "CPU µs/request", lambda row: row["cpu_us_request"], "cpu_us_request", 0),
        ("8 MB bodies, C=4", "resident MiB after", lambda row: row["rss_mib"], None, 0),
    ]
    for case, figure, value, fact, digits in figures:
        cells = [shown(middle(results, name, case, value), digits) for name in names]
        against = ratio(results, case, fact, "imageworks", "HAProxy") if fact else None
        goal = next((f"≤ {limit}" for wanted, (name, limit) in GOALS.items() if (wanted, name) == (case, fact)), "")
        lines.append(f"| {case} | {figure} | {' | '.join(cells)} | {shown(against, 2)} | {goal} |")
    for fact in ("first answer s", "idle MiB"):
        cells = [shown(starts.get(name, {}).get(fact), 2 if fact.endswith("s") else 0) for name in names]
        lines.append(f"| start | {fact} | {' | '.join(cells)} | - | {'≤ 0.6' if fact.endswith('s') else '≤ 60'} |")
    errors = sum(row["errors"] for (name, _), rows in results.items() if name == "imageworks" for row in rows)
    lines += ["", f"Errors through ImageWorks in all cases: {errors}."]
    if times := rates(results):
        lines += ["", f"Requests per second, {RATED}, beside proxies that do more than pass bytes on:", ""]
        lines += ["| proxy | requests/s | CPU µs/request | ours / theirs | goal |", "|---|---|---|---|---|"]
        for name, least in RATES.items():
            if name in times:
                rate = middle(results, name, RATED, lambda row: row["rps"])
                cost = middle(results, name, RATED, lambda row: row["cpu_us_request"])
                lines.append(f"| {name} | {shown(rate)} | {shown(cost)} | {times[name]:,.1f} | ≥ {least:g} |")
        lines += ["", f"llama-swap by way of naive aiohttp, of whose rate it had {LLAMA_SWAP_OF_NAIVE:.2f} elsewhere."]
    return "\n".join(lines)


def rates(results: Results) -> dict[str, float]:
    """How many times the rate of each of RATES ours is."""
    found = {name: ratio(results, RATED, "rps", "imageworks", name) for name in RATES}
    if naive := ratio(results, RATED, "rps", "imageworks", "naive aiohttp"):
        found["llama-swap"] = naive / LLAMA_SWAP_OF_NAIVE
    return {name: value for name, value in found.items() if value}


def machine() -> str:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    packages = ", ".join(f"{name} {version(name)}" for name in ("uvloop", "httptools", "aiohttp", "msgspec"))
    others = [_version(name, flag) for name, flag in (("haproxy", "-v"), ("nginx", "-v"))]
    said = "; ".join(each for each in others if each)
    return f"{len(models)} cores ({models[0] if models else platform.machine()}), Python {platform.python_version()}, {packages}; {said}."


def _version(name: str, flag: str) -> str:
    program = _installed(name)
    if program is None:
        return ""
    done = subprocess.run([program, flag], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines()[0].removesuffix(" - https://haproxy.org/")


def missed(results: Results) -> list[str]:
    found = []
    for case, (fact, limit) in GOALS.items():
        value = ratio(results, case, fact, "imageworks", "HAProxy")
        if value is not None and value > limit:
            found.append(f"{case}: {value:.2f} times HAProxy's, the goal is {limit}")
    for name, value in rates(results).items():
        if value < RATES[name]:
            found.append(f"{RATED}: {value:.1f} times the rate of {name}, the goal is {RATES[name]:g}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--targets", default="", help="names, with commas")
    parser.add_argument("--litellm", default="", help="its program")
    parser.add_argument("--vllm-router", default="", help="its program")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started ends with this
    results, starts, names = run(
        options.rounds,
        [name for name in options.targets.split(",") if name],
        {"LiteLLM": options.litellm, "vllm-router": options.vllm_router},
    )
    text = table(results, starts, names, options.rounds)
    print(text)
    if options.write:
        before, _, rest = DOCUMENT.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    for sentence in missed(results):
        print(f"missed: {sentence}")
    return 1 if missed(results) else 0


if __name__ == "__main__":
    sys.exit(main())
