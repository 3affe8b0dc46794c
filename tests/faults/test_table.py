"""docs/faults.md and the tests say the same: no fault without a test, no test that the page does not name."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"


def rows() -> dict[int, list[str]]:
    """Fault -> the tests that its row names."""
    found = {}
    for line in PAGE.read_text("utf-8").splitlines():
        if match := re.match(r"\| F(\d+) ", line):
            found[int(match[1])] = re.findall(r"`(test_\w+)`", line.rpartition(" | ")[2])
    return found


def written(folder: Path) -> set[str]:
    """Every test function below the folder."""
    return {
        name
        for path in folder.rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }


def test_every_fault_of_processes_gpus_and_storage_has_a_row() -> None:
    assert rows().keys() >= {*range(1, 35), 56, *range(60, 69), 71}


def test_every_row_names_tests_and_every_named_test_exists() -> None:
    known = written(ROOT / "tests")
    for fault, names in rows().items():
        assert names, f"F{fault} names no test"
        assert not set(names) - known, f"F{fault} names tests that are not there"


def test_every_test_of_a_fault_stands_in_the_row_of_its_fault() -> None:
    found = rows()
    for name in written(Path(__file__).parent):
        for number in re.findall(r"(?<=_f)\d\d(?=_)", name):
            assert name in found.get(int(number), ()), f"the row of F{int(number)} does not name {name}"
