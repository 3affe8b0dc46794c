"""The small world closes: every order of events was seen, and none breaks a promise."""

from __future__ import annotations

import pytest

from imageworks.runtime import events as ev
from imageworks.runtime import scheduler
from imageworks.runtime.state import State
from imageworks.simulation.exhaustive import explore, small_world


@pytest.mark.parametrize(("failures", "states"), [(False, 2_000), (True, 10_000)])
def test_two_gpus_and_three_owners_close_without_a_violation(*, failures: bool, states: int) -> None:
    found = explore(60_000, small_world(), failures=failures)
    assert found.closed
    assert found.violations == ()
    assert found.states > states


def test_a_search_that_is_given_up_says_so() -> None:
    found = explore(500, small_world(2), failures=True)
    assert not found.closed
    assert found.states >= 500


def test_a_bug_in_the_scheduler_is_found_with_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    original = scheduler.step

    def forgetful(state: State, event: ev.Event, now: float) -> tuple[State, tuple[ev.Effect, ...]]:
        for gpu in state.gpus.values():
            gpu.exclusive = None
        return original(state, event, now)

    monkeypatch.setattr(scheduler, "step", forgetful)
    found = explore(20_000, small_world(), failures=False)
    assert not found.closed
    assert "Acquire" in found.violations[0]
