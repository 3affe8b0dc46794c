"""Random schedules in chunks, resumable: each chunk's result is one line of docs/simulation-results.jsonl.

A line names the seeds, the steps, the violations, the commit (with `+` where the tree had changes), the time and the
machine's cores. Exits 1 when a chunk has a violation, after writing it down.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imageworks.simulation.campaign import Totals, run

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "simulation-results.jsonl"
PART = 250


def begun() -> int:
    """The first seed that was not played yet."""
    if not RESULTS.exists():
        return 0
    lines = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines() if line]
    return max((int(line["last_seed"]) + 1 for line in lines), default=0)


def commit() -> str:
    """The commit that is tested."""
    head = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "imageworks"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def chunk(seeds: range, steps: int, jobs: int) -> dict[str, Any]:
    """Play one chunk and say what came of it."""
    begin = time.monotonic()
    parts = [seeds[at : at + PART] for at in range(0, len(seeds), PART)]
    results: list[Totals] = []
    with ProcessPoolExecutor(jobs) as pool:
        for number, totals in enumerate(pool.map(run, parts, [steps] * len(parts)), 1):
            results.append(totals)
            if number % 20 == 0 or number == len(parts):
                played = sum(each.schedules for each in results)
                print(f"seeds {seeds[0]}-{seeds[-1]}: {played} of {len(seeds)}", flush=True)
    failures = [outcome for totals in results for outcome in totals.failures]
    events = sum(totals.steps for totals in results)
    spent_s = time.monotonic() - begin
    return {
        "schema": 1, "first_seed": seeds[0], "last_seed": seeds[-1], "steps": steps, "events": events,
        "violations": len(failures), "failing_seeds": [outcome.seed for outcome in failures], "commit": commit(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(spent_s, 1), "jobs": jobs,
        "events_per_second_and_core": round(events / spent_s / jobs),
    }  # fmt: skip


def main() -> int:
    """Go on until the seed that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--until", type=int, default=1_000_000, help="the seed after the last one (default: 1000000)")
    parser.add_argument("--chunk", type=int, default=50_000, help="seeds of one result line (default: 50000)")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    violations = 0
    while (first := begun()) < asked.until:
        seeds = range(first, min(first + asked.chunk, asked.until))
        line = chunk(seeds, asked.steps, asked.jobs)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        violations += line["violations"]
        print(json.dumps(line), flush=True)
    print(f"{begun()} schedules played in all, {violations} violations in this run")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
