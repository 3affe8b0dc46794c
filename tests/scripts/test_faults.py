"""docs/faults.md says nothing that no test shows: every fault has its row, and every test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.faults import PAGE, names

ROOT = Path(__file__).parents[2]
FAULTS = (*range(1, 36), 56, *range(60, 69), 71)


def test_every_fault_has_a_row() -> None:
    rows = {int(number) for number in re.findall(r"(?m)^\| F(\d+) ", PAGE.read_text("utf-8"))}
    assert sorted(set(FAULTS) - rows) == []


def test_every_test_that_is_named_exists() -> None:
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"(?m)^(?:async )?def (test_\w+)\(", path.read_text("utf-8"))
    }
    assert names()
    assert sorted(set(names()) - there) == []
