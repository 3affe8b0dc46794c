"""Repeat the tests of docs/faults.md and add the outcome to docs/faults-runs.json: `scripts/faults [ROUNDS] [--jobs N]`.

Owns that file, and the sentence about it on the page: for each test how often it passed, failed and was skipped, and over
which commits. Rounds add up, so a long run may be cut off and taken up again; a change of the code begins anew with
`--anew`. A round mostly waits for processes, so several go beside each other. Exits 1 when a test failed in any round, or
the page names one that there is not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE, RUNS = ROOT / "docs" / "faults.md", ROOT / "docs" / "faults-runs.json"
SUM = re.compile(r"So far they ran\n?.*?cores\)\.", re.DOTALL)
"""The page's sentence about the file."""


@dataclass(frozen=True)
class Outcome:
    """How one test ended in one case: `passed`, `failed` or `skipped`, and what it said where it failed."""

    name: str
    word: str
    text: str = ""


def names() -> list[str]:
    """Every test that the page names."""
    return sorted(set(re.findall(r"`(test_\w+)`", PAGE.read_text("utf-8"))))


def places(tests: Sequence[str]) -> dict[str, str]:
    """Where the tests are written, as pytest is told: name -> FILE::NAME. What is not there has no entry."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in re.findall(r"(?m)^(?:async )?def (test_\w+)\(", path.read_text("utf-8")):
            found[name] = f"{path.relative_to(ROOT)}::{name}"
    return {name: found[name] for name in tests if name in found}


def one_round(tests: Sequence[str]) -> list[Outcome]:
    """Run the tests (FILE::NAME) once, with temporary folders of their own. Raises RuntimeError when pytest itself fails."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["-q", "-p", "no:cacheprovider", f"--basetemp={folder}/tests", f"--junitxml={report}", *tests]
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", *words], cwd=ROOT, check=False, capture_output=True, text=True
        )
        if ran.returncode not in (0, 1):
            raise RuntimeError(f"pytest ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
        return list(read(report))


def read(report: Path) -> Iterator[Outcome]:
    """What a report says, once for each case of a test."""
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - our own report
        name = case.get("name", "").partition("[")[0]
        bad = [each.text or "" for each in (*case.iter("failure"), *case.iter("error"))]
        skipped = case.find("skipped") is not None
        yield Outcome(name, "failed" if bad else "skipped" if skipped else "passed", "\n".join(bad))


def add(known: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
    """Count one more round."""
    known["rounds"] += 1
    for each in outcomes:
        row = known["tests"].setdefault(each.name, {"passed": 0, "failed": 0, "skipped": 0})
        row[each.word] += 1


def write(path: Path, text: str) -> None:
    """All of it or nothing."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, "utf-8")
    beside.replace(path)


def sentence(known: Mapping[str, Any]) -> str:
    """What the page says about the file."""
    counts = {word: sum(row[word] for row in known["tests"].values()) for word in ("passed", "failed", "skipped")}
    told = ", ".join(f"{count} {word}" for word, count in counts.items())
    return f"So far they ran\n{known['rounds']} times ({told}; {known['wall_s'] / 60:.0f} minutes on {known['cores']} busy cores)."


def commit() -> str:
    """The commit that is tried."""
    words = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def asked(words: Sequence[str]) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="scripts/faults", description="Repeat the tests of docs/faults.md.")
    parser.add_argument("rounds", type=int, nargs="?", default=50)
    parser.add_argument("--jobs", type=int, default=1, help="so many rounds beside each other (default: 1)")
    parser.add_argument("--anew", action="store_true", help="forget what was counted before")
    parser.add_argument("--into", type=Path, default=RUNS, help="another file for the outcome; the page stays as it is")
    return parser.parse_args(words)


def begun(path: Path, *, anew: bool) -> dict[str, Any]:
    """What was counted before, and the commit that is counted now."""
    known: dict[str, Any] = {
        "rounds": 0,
        "wall_s": 0,
        "cores": len(os.sched_getaffinity(0)),
        "commits": [],
        "tests": {},
    }
    if path.exists() and not anew:
        known |= json.loads(path.read_text("utf-8"))
    return known | {"commits": sorted({*known["commits"], commit()})}


def main(words: Sequence[str]) -> int:
    """Play the rounds; the file is whole after each of them."""
    wish, tests = asked(words), names()
    there = places(tests)
    known = begun(wish.into, anew=wish.anew)
    begin, before_s = time.monotonic(), known["wall_s"]
    with ThreadPoolExecutor(wish.jobs) as pool:
        rounds = [pool.submit(one_round, list(there.values())) for _ in range(wish.rounds)]
        for done, each in enumerate(as_completed(rounds), 1):
            outcomes = each.result()
            spent_s = time.monotonic() - begin
            add(known, outcomes)
            known["wall_s"] = round(before_s + spent_s)
            write(wish.into, json.dumps(known, indent=1, sort_keys=True) + "\n")
            tell(outcomes, done, wish.rounds, spent_s)
    if wish.into == RUNS:
        write(PAGE, SUM.sub(sentence(known), PAGE.read_text("utf-8")))
    if missing := sorted(set(tests) - there.keys()):
        print(f"docs/faults.md names tests that there are not: {', '.join(missing)}")
    return 1 if missing or any(row["failed"] for row in known["tests"].values()) else 0


def tell(outcomes: Sequence[Outcome], done: int, rounds: int, spent_s: float) -> None:
    """One line for a round, and what its failures said."""
    failed = [each for each in outcomes if each.word == "failed"]
    for each in failed:
        print(f"--- {each.name}\n{each.text}")
    left_s = spent_s / done * (rounds - done)
    print(
        f"round {done} of {rounds}: failed {', '.join(each.name for each in failed) or 'none'};"
        f" {spent_s / 60:.0f} min so far, about {left_s / 60:.0f} to go",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
