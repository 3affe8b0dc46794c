"""Random schedules in chunks, resumable: each chunk's result is one line of docs/simulation-results.jsonl.

A line names the seeds, the steps, the violations, the commit (with `+` where the tree had changes), the hash of all sources
that take part, whether they were compiled, the time and the processes. A run goes on only after lines of the same hash: other
sources begin at seed 0 again. `--compiled` plays machine code of the same sources, after 200 schedules proved it the same.
Exits 1 when a chunk has a violation, after writing it down.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts import compiled_simulator

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "simulation-results.jsonl"
PART = 250
PROOF = range(200)


def played(sources: str) -> list[tuple[int, int]]:
    """First and last seeds that were played with these sources, in order."""
    lines = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()] if RESULTS.exists() else []
    return sorted((line["first_seed"], line["last_seed"]) for line in lines if line["sources"] == sources)


def begun(sources: str, first: int = 0) -> int:
    """The next seed from `first` on that was not played yet with these sources."""
    for begin, last in played(sources):
        if begin <= first <= last:
            first = last + 1
    return first


def unplayed(sources: str, first: int, until: int) -> int:
    """The seed after the last one, at most `until`, up to which from `first` on nothing was played with these sources."""
    return min([until, *(begin for begin, _ in played(sources) if begin > first)])


def commit() -> str:
    """The commit that is tested."""
    head = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "imageworks"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def part(seeds: range, steps: int) -> tuple[int, int, list[int]]:
    """Play some of a chunk in a process of its own: schedules, events, failing seeds. Compiled values cannot be sent."""
    for name in compiled_simulator.FIRST:
        importlib.import_module(name)
    from imageworks.simulation.campaign import run  # noqa: PLC0415 - the compiled one, where there is one

    totals = run(seeds, steps)
    return totals.schedules, totals.steps, [outcome.seed for outcome in totals.failures]


def chunk(seeds: range, steps: int, jobs: int) -> dict[str, Any]:
    """Play one chunk and say what came of it."""
    begin = time.monotonic()
    parts = [seeds[at : at + PART] for at in range(0, len(seeds), PART)]
    failing: list[int] = []
    played = events = 0
    with ProcessPoolExecutor(jobs) as pool:
        for number, (schedules, steps_done, failed) in enumerate(pool.map(part, parts, [steps] * len(parts)), 1):
            played, events = played + schedules, events + steps_done
            failing += failed
            if number % 20 == 0 or number == len(parts):
                left_s = (time.monotonic() - begin) / played * (len(seeds) - played)
                print(f"seeds {seeds[0]}-{seeds[-1]}: {played} of {len(seeds)}, {left_s:.0f} s left", flush=True)
    spent_s = time.monotonic() - begin
    return {
        "schema": 1, "first_seed": seeds[0], "last_seed": seeds[-1], "steps": steps, "events": events,
        "violations": len(failing), "failing_seeds": failing, "commit": commit(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(spent_s, 1), "jobs": jobs,
        "events_per_second_and_core": round(events / spent_s / jobs),
    }  # fmt: skip


def main() -> int:
    """Go on until the seed that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--until", type=int, default=1_000_000, help="the seed after the last one (default: 1000000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--chunk", type=int, default=50_000, help="seeds of one result line (default: 50000)")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--compiled", action="store_true", help="compile the simulator first (gcc, mypy): twice as fast"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if asked.compiled:
            compile_into(Path(folder), asked.steps)
        return play(asked)


def compile_into(folder: Path, steps: int) -> None:
    """Compile, prove, and play from there; SystemExit where compiled schedules are others."""
    compiled_simulator.build(folder, compiled_simulator.sources())
    different = compiled_simulator.differing(folder, PROOF, steps)
    if different:
        raise SystemExit("compiled schedules are others: " + different[0])
    sys.path.insert(0, str(folder))


def play(asked: argparse.Namespace) -> int:
    """Chunk after chunk. Sources that change meanwhile end the run: what is played is what was loaded."""
    violations, sources = 0, compiled_simulator.digest(compiled_simulator.sources())
    while (first := begun(sources, asked.first)) < asked.until:
        seeds = range(first, unplayed(sources, first, min(first + asked.chunk, asked.until)))
        line = chunk(seeds, asked.steps, asked.jobs)
        if compiled_simulator.digest(compiled_simulator.sources()) != sources:
            raise SystemExit("the sources changed under the run: its last chunk does not count")
        line |= {"sources": sources, "compiled": asked.compiled}
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        violations += line["violations"]
        print(json.dumps(line), flush=True)
    print(f"seeds {asked.first}-{asked.until - 1} are played, {violations} violations in this run")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
