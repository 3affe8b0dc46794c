"""The report of coverage.py as a table of packages; exit code 1 when one has less than LEAST of its branches taken.

Owns the sum and the bound, and measures nothing: scripts/coverage runs the tests. A branch is one of the ways out of a
line that has several; a package's percentage is that of its branches, not of branches and lines together.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LEAST = 95.0
"""Per cent of a package's branches."""
COUNTS = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def packages(report: Mapping[str, Any]) -> Mapping[str, Counter[str]]:
    """The counts of every package, by its name, from `coverage json` (format 3)."""
    found: dict[str, Counter[str]] = {}
    for name, file in report["files"].items():
        counts = found.setdefault(name.split("/")[1], Counter())
        counts.update({key: file["summary"][key] for key in COUNTS})
    return dict(sorted(found.items()))


def share(part: int, whole: int) -> float:
    """Per cent; all of nothing is 100."""
    return 100.0 * part / whole if whole else 100.0


def row(name: str, counts: Counter[str]) -> str:
    """A line of the table."""
    lines, branches = counts["num_statements"], counts["num_branches"]
    reached, taken = counts["covered_lines"], counts["covered_branches"]
    return f"| {name} | {lines} | {share(reached, lines):.1f} % | {branches} | {share(taken, branches):.1f} % |"


def main(arguments: Sequence[str]) -> int:
    """Print the table of the report named, and what is below the bound."""
    (name,) = arguments
    found = packages(json.loads(Path(name).read_text("utf-8")))
    print("| package | statements | run | branches | taken |\n|---|---|---|---|---|")
    for package, counts in found.items():
        print(row(package, counts))
    print(row("together", sum(found.values(), Counter())))
    low = [name for name, counts in found.items() if share(counts["covered_branches"], counts["num_branches"]) < LEAST]
    if low:
        print(f"less than {LEAST:g} % of the branches taken: {', '.join(low)}", file=sys.stderr)
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
