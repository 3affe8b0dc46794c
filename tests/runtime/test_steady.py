"""Time that the process did not run does not pass for the scheduler, and time never goes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imageworks.runtime.steady import ROUND_S, STALL_S, SteadyClock


class Hand:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_stop_of_the_process_takes_no_time_from_anybody() -> None:
    hand = Hand()
    clock, stalls = SteadyClock(hand), list[float]()
    clock.stalled = stalls.append
    hand.now += 1
    clock.beat()
    assert clock() == 1001.0
    hand.now += 120
    assert clock() == 1001.0
    assert stalls == [120.0]
    for _ in range(int(ROUND_S)):
        hand.now += 1
        clock.beat()
        assert clock() == 1001.0
    hand.now += 1
    assert clock() == 1002.0


def test_load_that_delays_the_beat_is_no_stall() -> None:
    hand = Hand()
    clock = SteadyClock(hand)
    for _ in range(100):
        hand.now += STALL_S - 0.01
        clock.beat()
    assert clock() == hand.now
    assert clock.skipped_s == 0


@given(steps=st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=50))
def test_time_never_goes_back_and_never_runs_ahead(steps: list[tuple[float, bool]]) -> None:
    hand = Hand()
    clock = SteadyClock(hand)
    last = clock()
    for seconds, beats in steps:
        hand.now += seconds
        now = clock()
        assert last <= now <= hand.now
        last = now
        if beats:
            clock.beat()
