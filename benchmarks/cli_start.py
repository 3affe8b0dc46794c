"""How long `imageworks --help` and `--version` take, beside `python -c 'import click'` in the same run.

Prints minimum and median of whole processes in milliseconds and the ratio of the medians; exit code 1 when a
ratio is above the goal. The commands take turns, so that a busy moment of the machine hits them alike.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

GOAL = 2.0
ROUNDS = 25
SCRIPT = str(Path(sys.executable).with_name("imageworks"))
COMMANDS = {
    "python -c 'import click'": (sys.executable, "-c", "import click"),
    "imageworks --help": (SCRIPT, "--help"),
    "imageworks --version": (SCRIPT, "--version"),
}

# As installed: modules are compiled once, whatever the shell says about that.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def milliseconds(command: tuple[str, ...]) -> float:
    """Wall time of one run. Raises CalledProcessError when the command fails."""
    start = time.perf_counter()
    subprocess.run(command, check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000


def main() -> int:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for name, command in COMMANDS.items():  # bytecode is written and files are read once before it counts
        milliseconds(command)
        times[name].clear()
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            times[name].append(milliseconds(command))
    base = statistics.median(next(iter(times.values())))
    print(f"{'command':26} {'min ms':>8} {'median ms':>10} {'ratio':>6}   ({ROUNDS} runs each, goal <= {GOAL:g})")
    ratios = []
    for name, values in times.items():
        ratios.append(statistics.median(values) / base)
        print(f"{name:26} {min(values):8.1f} {statistics.median(values):10.1f} {ratios[-1]:6.2f}")
    return int(max(ratios) > GOAL)


if __name__ == "__main__":
    sys.exit(main())
