"""Does anything stay behind? Streams without a pause for minutes, then what the proxy's process holds is compared.

A mock engine and a load generator in C (benchmarks/proxy) keep `--streams` streams open at once, each of 20 chunks at
50 ms, for `--minutes`. Before the load (after one that fills caches, pools and the allocator's arenas) and SETTLE_S after it are counted:
resident memory, open files, threads, requests in flight. `python benchmarks/soak.py [--minutes 10] [--streams 1000]`; exits
1 when one did not come back to where it was, or a stream failed.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

from proxy_bench import SERVE, compiled, first_answer_s, routes_file, rss_mib, running  # type: ignore[import-not-found]
from proxy_overhead import free_ports  # type: ignore[import-not-found]

WARM_UP_S = 30.0
"""As many streams at once leave the allocator's arenas larger; that grows for some 20 s, and then no more."""
SETTLE_S = 6.0
"""Longer than idle connections to engines are kept (2 s)."""
RSS_SLACK_MIB = 16.0
"""An allocator does not give every page back; what leaks grows with the minutes."""


@dataclass(frozen=True)
class Held:
    """What the proxy holds."""

    rss_mib: float
    files: int
    threads: int
    inflight: int


def held(pid: int, port: int) -> Held:
    files, threads = (len(list(Path(f"/proc/{pid}/{kind}").iterdir())) for kind in ("fd", "task"))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/running", timeout=10) as answer:
        models = json.load(answer)["running"]
    return Held(round(rss_mib(pid), 1), files, threads, sum(each["inflight"] for each in models))


def load(generator: Path, port: int, streams: int, seconds: float) -> dict[str, int]:
    arguments = ["-p", port, "-c", streams, "-s", 20, "-D", 50_000, "-d", seconds, "-t", 8]
    done = subprocess.run([generator, *map(str, arguments)], capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def faults(before: Held, after: Held, errors: int) -> list[str]:
    """What did not come back."""
    found = [f"{errors} streams failed"] if errors else []
    if after.rss_mib > before.rss_mib + RSS_SLACK_MIB:
        found.append(f"resident memory grew by {after.rss_mib - before.rss_mib:.1f} MiB")
    found += [
        f"{name}: {getattr(before, name)} before, {getattr(after, name)} after"
        for name in ("files", "threads", "inflight")
        if getattr(after, name) > getattr(before, name)
    ]
    return found


def soak(minutes: float, streams: int) -> list[str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mock, generator = compiled("mock", folder), compiled("lg", folder)
        engine, port = free_ports(2)
        serve = [sys.executable, "-c", SERVE, str(routes_file(folder, engine, port)), name]
        with running([mock, str(engine)], 1, folder), running(serve, 0, folder) as pid:
            first_answer_s(port, time.perf_counter())
            load(generator, port, streams, WARM_UP_S)
            time.sleep(SETTLE_S)
            before = held(pid, port)
            done = load(generator, port, streams, minutes * 60)
            time.sleep(SETTLE_S)
            after = held(pid, port)
    print(f"{done['ok']:,} streams, {done['errors']} errors")
    print(f"before: {asdict(before)}\nafter:  {asdict(after)}")
    return faults(before, after, done["errors"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--streams", type=int, default=1000)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started ends with this
    found = soak(options.minutes, options.streams)
    for sentence in found:
        print(f"left behind: {sentence}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
