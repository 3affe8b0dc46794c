"""Every invariant has a checker, and every checker notices a bug that was planted for it."""

from __future__ import annotations

import pytest

from imageworks.simulation.bugs import BUGS, Bug, caught
from imageworks.simulation.campaign import Parts, play
from imageworks.simulation.invariants import INVARIANTS
from imageworks.simulation.scenario import draw

ENOUGH = 150


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"I{bug.number}-{type(bug.parts().core).__name__}")
def test_a_planted_bug_is_caught_by_its_own_checker(bug: Bug) -> None:
    assert caught(bug, ENOUGH) is not None, f"nobody notices: {bug.name}"


def test_each_of_the_thirty_invariants_has_a_checker_and_a_planted_bug() -> None:
    numbers = set(range(1, 31))
    assert {each.number for each in INVARIANTS} == numbers
    assert {bug.number for bug in BUGS} == numbers


def test_the_checkers_are_silent_where_no_bug_is_planted() -> None:
    """The seeds that catch the bugs are clean without them: it is the bug that is noticed, not the schedule."""
    for seed in range(40):
        assert play(draw(seed, 200), 200, Parts()).book.violations == []
