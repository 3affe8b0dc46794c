"""docs/faults.md says nothing that no test shows: every fault has its row, and every test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.faults import PAGE, SUM, Outcome, add, names, places, read, sentence

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


def test_a_round_runs_the_named_tests_and_no_others() -> None:
    assert places(["test_a_round_runs_the_named_tests_and_no_others", "test_nowhere"]) == {
        "test_a_round_runs_the_named_tests_and_no_others": "tests/scripts/test_faults.py::"
        "test_a_round_runs_the_named_tests_and_no_others"
    }


def test_the_cases_of_a_test_are_counted_and_the_page_tells_the_sum(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuite><testcase name="test_a[1]"/><testcase name="test_a[2]"><failure>why</failure></testcase>'
        '<testcase name="test_b"><skipped/></testcase></testsuite>'
    )
    outcomes = list(read(report))
    assert outcomes == [Outcome("test_a", "passed"), Outcome("test_a", "failed", "why"), Outcome("test_b", "skipped")]
    known = {"rounds": 0, "wall_s": 600, "cores": 2, "tests": {}}
    add(known, outcomes)
    told = sentence(known)
    assert told == "So far they ran\n1 times (1 passed, 1 failed, 1 skipped; 10 minutes on 2 busy cores)."
    assert SUM.fullmatch(told)
    assert len(SUM.findall(PAGE.read_text("utf-8"))) == 1
