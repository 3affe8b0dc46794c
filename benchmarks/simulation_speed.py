"""How fast the whole simulator is, with faults and all checkers: events given to the scheduler, per second and core.

`python benchmarks/simulation_speed.py [--schedules 1000] [--json]`; exits 1 below the goal. The events are those of the
first seeds, so figures of two commits compare as long as schedules are drawn alike.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from imageworks.simulation.campaign import run

GOAL = 20_000
STEPS = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=1_000)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    run(range(20), STEPS)
    begin, cpu = time.perf_counter(), time.process_time()
    totals = run(range(asked.schedules), STEPS)
    wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
    figures = {
        "schedules": totals.schedules,
        "events": totals.steps,
        "events_per_second": round(totals.steps / wall_s),
        "events_per_cpu_second": round(totals.steps / cpu_s),
        "violations": len(totals.failures),
    }
    print(json.dumps(figures) if asked.json else "\n".join(f"{name:>22}: {value}" for name, value in figures.items()))
    return 0 if totals.steps / cpu_s >= GOAL and not totals.failures else 1


if __name__ == "__main__":
    sys.exit(main())
