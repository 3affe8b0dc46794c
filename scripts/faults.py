"""Repeat the tests of docs/faults.md and add the outcome to docs/faults-runs.json: `scripts/faults [N]`.

Owns that file: for each test how often it passed, failed and was skipped, and over which commits. Rounds add up, so a long
run may be cut off and taken up again; a change of the code begins anew with `--anew`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE, RUNS = ROOT / "docs" / "faults.md", ROOT / "docs" / "faults-runs.json"


def names() -> list[str]:
    """Every test that the page names."""
    return sorted(set(re.findall(r"`(test_\w+)`", PAGE.read_text("utf-8"))))


def one_round(tests: list[str]) -> Iterator[tuple[str, str]]:
    """Run all of them once: (name, `passed`, `failed` or `skipped`), once for each case of a test."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        # the expression finds parts of names too; the loop below leaves strangers out
        words = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}", "-k", " or ".join(tests), "tests"]
        subprocess.run([sys.executable, "-m", "pytest", *words], cwd=ROOT, check=False, capture_output=True)
        for case in ET.parse(report).iter("testcase"):  # noqa: S314 - our own report
            name = case.get("name", "").partition("[")[0]
            if name in tests:
                bad = case.find("failure") is not None or case.find("error") is not None
                yield name, "failed" if bad else "skipped" if case.find("skipped") is not None else "passed"


def commit() -> str:
    """The commit that is tried."""
    words = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def main(words: list[str]) -> int:
    """Exit 1 when a test failed in any round, or the page names one that there is not."""
    tests, rounds = names(), int(next((word for word in words if word.isdecimal()), "50"))
    known: dict[str, Any] = {"rounds": 0, "commits": [], "tests": {}}
    if RUNS.exists() and "--anew" not in words:
        known = json.loads(RUNS.read_text("utf-8"))
    for number in range(rounds):
        begin = time.monotonic()
        for name, outcome in one_round(tests):
            row = known["tests"].setdefault(name, {"passed": 0, "failed": 0, "skipped": 0})
            row[outcome] += 1
        known["rounds"] += 1
        known["commits"] = sorted({*known["commits"], commit()})
        RUNS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", "utf-8")
        bad = [name for name, row in known["tests"].items() if row["failed"]]
        print(
            f"round {number + 1} of {rounds}: {time.monotonic() - begin:.0f} s, failed so far: {', '.join(bad) or 'none'}"
        )
    missing = [name for name in tests if name not in known["tests"]]
    if missing:
        print(f"docs/faults.md names tests that there are not: {', '.join(missing)}")
    return 1 if missing or any(row["failed"] for row in known["tests"].values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
