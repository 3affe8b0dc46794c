from __future__ import annotations

from collections.abc import Callable

from syrupy.assertion import SnapshotAssertion

from imageworks.diagnostics import human, machine
from imageworks.model.load import Outcome

Make = Callable[[str], Outcome]


def test_each_mistake_is_found_and_nothing_else(outcome: Make, code: str) -> None:
    assert {item.code for item in outcome(code).diagnostics} == {code}


def test_what_a_person_reads(outcome: Make, code: str, snapshot: SnapshotAssertion) -> None:
    found = outcome(code)
    assert human.full(found.diagnostics, found.texts) == snapshot


def test_what_a_machine_reads(outcome: Make, code: str, snapshot: SnapshotAssertion) -> None:
    assert machine.json(outcome(code).diagnostics) == snapshot


def test_every_finding_says_a_way_out_or_a_reason(outcome: Make, code: str) -> None:
    for item in outcome(code).diagnostics:
        assert item.fixes or item.notes or (item.primary is not None and item.primary.text)
