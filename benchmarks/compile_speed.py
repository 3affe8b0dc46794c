"""What compiling costs: verbs beside the imports they cannot avoid, and growth with the number of models.

    python benchmarks/compile_speed.py [--scale 100,1000,5000]

First table: whole processes, taking turns, minimum and median in milliseconds, ratio of the medians to
`python -c 'import click, pydantic.main, ruamel.yaml, jinja2'` of the same run. Second table: a stack of N models on
five profiles, one process each: seconds, peak memory and seconds per 1,000 models. Exit code 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = str(Path(sys.executable).with_name("imageworks"))
BASE = "python -c 'import click, pydantic.main, ruamel.yaml, jinja2'"
ROUNDS = 15
VERBS = {
    "imageworks check": ((SCRIPT, "check"), 1.6),
    "imageworks compile --all": ((SCRIPT, "compile", "--all"), 2.2),
}
SCALE_SECONDS, SCALE_MIB = 10.0, 500.0
PROFILES = ("compact_8gb", "constrained_16gb", "balanced_24gb", "roomy_40gb")
MATCHES = (">=7.5GiB <11.5GiB", ">=14.9GiB <22.1GiB", ">=22.1GiB <39GiB", ">=39GiB <78GiB")

# As installed: modules are compiled once, whatever the shell says about that.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def milliseconds(command: tuple[str, ...]) -> float:
    """Wall time of one run in the repository's folder. Raises CalledProcessError when the command fails."""
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000


def verbs() -> bool:
    """Print the first table; True when every ratio is within its goal."""
    commands = {BASE: (sys.executable, "-c", BASE.split("'")[1])} | {name: verb for name, (verb, _) in VERBS.items()}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():  # bytecode is written and files are read once before it counts
        milliseconds(command)
    for _ in range(ROUNDS):
        for name, command in commands.items():
            times[name].append(milliseconds(command))
    base = statistics.median(times[BASE])
    print(f"{'command':62} {'min ms':>8} {'median ms':>10} {'ratio':>6} {'goal':>5}")
    met = True
    for name, values in times.items():
        ratio = statistics.median(values) / base
        goal = VERBS[name][1] if name in VERBS else None
        met = met and (goal is None or ratio <= goal)
        print(f"{name:62} {min(values):8.1f} {statistics.median(values):10.1f} {ratio:6.2f} {goal or '':>5}")
    return met


def stack(count: int) -> str:
    """A stack of `count` models, half of them with ranges to solve, on four GPU profiles and development."""
    lines = ["version: 1", "name: scale", "profiles:"]
    for name, vram in zip(PROFILES, MATCHES, strict=True):
        lines.append(f'  {name}: {{match: {{gpus: 1, vram: "{vram}", compute: ">=8.0"}}, max_concurrent_models: 2,')
        lines.append("    strategy: concurrent_limited}")
    lines.append("models:")
    for number in range(count):
        context = "{at_least: 2048, up_to: 8192}" if number % 2 else "4096"
        lines += [
            f"  model-{number}:",
            "    backend: vllm",
            f"    source: {{path: org/model-{number}}}",
            "    vram: {weights: 3GiB, kv: 1GiB}",
            f"    context: {context}",
            f"    roles: {{chat: {number % 101}}}",
        ]
    return "\n".join(lines) + "\n"


def scale(counts: list[int]) -> bool:
    """Print the second table; True when 1,000 models stay within the goals."""
    met = True
    print(f"\n{'models x 5 profiles':>20} {'seconds':>8} {'peak MiB':>9} {'s per 1,000':>12}")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "stack.yaml").write_text(stack(count), encoding="utf-8")
            start = time.perf_counter()
            run = subprocess.run(
                [SCRIPT, "compile"], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
            )
            seconds = time.perf_counter() - start
        if run.returncode:
            print(run.stderr[-2000:])
            return False
        # the largest child so far; counts grow, so it is this one
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"{count:20} {seconds:8.2f} {peak:9.0f} {seconds / count * 1000:12.2f}")
        met = met and (count != 1000 or (seconds < SCALE_SECONDS and peak < SCALE_MIB))
    return met


def main() -> int:
    """Run both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scale", default="100,1000,5000", help="numbers of models, comma separated")
    counts = [int(word) for word in parser.parse_args().scale.split(",")]
    fast, small = verbs(), scale(counts)
    return 0 if fast and small else 1


if __name__ == "__main__":
    sys.exit(main())
