"""The judgement over looks: what ends a life, what does not, and when a token is spent to find out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.runtime.health import (
    FALL,
    FAST_S,
    RISE,
    STALL_S,
    Seen,
    Vitals,
    judge,
    patience_s,
    pause_s,
    problem,
    wants_canary,
)

GOOD, BAD = Seen("ok"), Seen("failing", "/health says 503")


def after(*looks: Seen) -> Vitals:
    vitals = Vitals()
    for seen in looks:
        vitals = judge(vitals, seen)
    return vitals


looks = st.builds(
    Seen,
    answering=st.sampled_from(["ok", "failing", "silent", "absent"]),
    inflight=st.integers(0, 3),
    quiet_s=st.none() | st.floats(0, 2 * STALL_S),
    unheard=st.booleans(),
    canary=st.sampled_from([None, True, False]),
)


def test_the_first_good_look_makes_it_healthy() -> None:
    assert after(GOOD).verdict == "healthy"


def test_only_bad_looks_in_a_row_end_a_life() -> None:
    assert after(*[BAD] * (FALL - 1)).verdict == "suspect"
    assert after(*[BAD] * FALL).verdict == "dead"
    assert after(*[BAD] * FALL).reason == "/health says 503"
    assert after(*[BAD, BAD, GOOD] * 20, BAD, BAD).verdict == "suspect"


def test_f56_looks_that_alternate_end_nothing_and_are_never_healthy_again_either() -> None:
    assert after(GOOD, *[BAD, GOOD] * 50).verdict == "suspect"


def test_a_suspect_is_healthy_after_good_looks_in_a_row() -> None:
    assert after(BAD, *[GOOD] * (RISE - 1)).verdict == "suspect"
    assert after(BAD, *[GOOD] * RISE) == Vitals("healthy", 0, RISE, "")


@given(st.lists(looks, max_size=40))
def test_dead_needs_as_many_bad_looks_in_a_row_as_it_says_whatever_came_before(seen: list[Seen]) -> None:
    vitals, row = Vitals(), 0
    for look in seen:
        if vitals.verdict == "dead":
            assert judge(vitals, look) == vitals
            continue
        wrong = problem(look)
        row = row if wrong == "" else 0 if wrong is None else row + 1
        vitals = judge(vitals, look)
        assert (vitals.verdict == "dead") == (row >= FALL)
        assert bool(vitals.reason) == (vitals.verdict in ("suspect", "dead"))


@pytest.mark.parametrize("answering", ["silent", "ok"])
def test_f34_work_in_progress_is_never_a_bad_look(answering: Any) -> None:
    assert not problem(Seen(answering, inflight=1, quiet_s=STALL_S - 1))
    assert after(*[Seen("silent", inflight=1, quiet_s=1.0)] * 100) == Vitals()


def test_silence_with_nothing_to_do_or_for_too_long_is_bad() -> None:
    assert problem(Seen("silent"))
    assert problem(Seen("silent", inflight=2, quiet_s=STALL_S))


def test_a_failing_or_absent_endpoint_is_bad_even_while_requests_run() -> None:
    assert problem(Seen("failing", inflight=1, quiet_s=0.0))
    assert problem(Seen("absent", inflight=1, quiet_s=0.0))


def test_a_token_outweighs_the_endpoint() -> None:
    assert problem(Seen("silent", canary=True)) is None
    assert problem(Seen("ok", canary=False)) == "its health endpoint answers, but it computes no token"


@pytest.mark.parametrize(
    ("vitals", "seen", "wanted"),
    [
        (Vitals("healthy"), Seen("ok"), False),  # idle and well: a token would be wasted
        (Vitals("healthy"), Seen("ok", inflight=1, quiet_s=1.0), False),  # it works
        (Vitals("suspect"), Seen("ok", inflight=1, quiet_s=1.0), False),
        (Vitals("suspect"), Seen("ok"), True),
        (Vitals("healthy"), Seen("ok", unheard=True), True),  # the last request ended without a byte
        (Vitals("healthy"), Seen("ok", inflight=1, quiet_s=STALL_S), True),  # vllm#39863
        (Vitals("suspect"), Seen("silent"), False),  # it would not be answered either
        (Vitals("suspect"), Seen("failing"), False),
    ],
)
def test_a_canary_is_asked_where_something_is_odd_and_only_there(vitals: Vitals, seen: Seen, wanted: bool) -> None:  # noqa: FBT001 - a case
    assert wants_canary(vitals, seen) is wanted


def test_a_stall_that_no_canary_can_judge_says_nothing() -> None:
    assert problem(Seen("ok", inflight=1, quiet_s=STALL_S, canary=None)) == ""


def test_what_is_odd_is_looked_at_soon_and_what_is_well_at_the_interval() -> None:
    assert pause_s(Vitals("healthy"), 30.0) == 30.0
    assert pause_s(Vitals("suspect"), 30.0) == pause_s(Vitals(), 30.0) == FAST_S
    assert pause_s(Vitals("suspect"), 0.5) == 0.5


def test_a_canarys_patience_follows_the_interval_within_bounds() -> None:
    assert (patience_s(0.1), patience_s(30.0), patience_s(600.0)) == (2.0, 60.0, 60.0)
