"""The table of promises in the documentation is the list of checkers."""

from __future__ import annotations

from pathlib import Path

from imageworks.simulation.bugs import BUGS
from imageworks.simulation.invariants import INVARIANTS

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def test_every_promise_and_planted_bug_stands_in_the_table() -> None:
    rows = {line.split("|")[1].strip(): line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| I")}
    for each in INVARIANTS:
        assert each.title in rows[f"I{each.number}"]
        assert each.place in rows[f"I{each.number}"]
    for bug in BUGS:
        assert bug.name[1:] in rows[f"I{bug.number}"]
