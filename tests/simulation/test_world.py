"""The simulated world keeps its own rules: order at one moment, who is a stranger on a card, and an end to every schedule."""

from __future__ import annotations

import pytest

from imageworks.simulation.agenda import Agenda
from imageworks.simulation.campaign import run_seed
from imageworks.simulation.cards import FOREIGN, Cards


def test_what_is_put_off_to_one_moment_happens_in_the_order_in_which_it_was_put_off() -> None:
    """Also where the time until then cannot be written exactly: 3.1 + (7.8 - 3.1) is before 7.8."""
    agenda, seen = Agenda(), list[str]()
    agenda.at(1.8, lambda: agenda.at(7.8, seen.append, "first"))
    agenda.at(3.1, lambda: agenda.at(7.8, seen.append, "second"))
    while agenda.go_on():
        pass
    assert (agenda.now, seen) == (7.8, ["first", "second"])


def test_a_holder_that_the_manager_does_not_know_is_a_stranger_on_the_card() -> None:
    cards = Cards({0: 12_000}, {0: "GPU-0"}, blind=False)
    cards.hold("a", {0: 3_000})
    cards.hold("q1", {0: 2_000})
    cards.hold(FOREIGN, {0: 1_000})
    told = [cards.sample(0.0, ours)["GPU-0"] for ours in ({"a", "q1"}, {"a"})]
    assert [reading.foreign_mib for reading in told if reading is not None] == [1_000, 3_000]


def test_bytes_that_nobody_waits_for_any_more_are_a_strangers_who_hides_others_where_pids_tell_nothing() -> None:
    for blind in (False, True):
        cards = Cards({0: 12_000}, {0: "GPU-0"}, blind=blind)
        cards.hold("a", {0: 3_000})
        cards.let_go("a", kept=1.0)
        cards.strand("a")
        assert (cards.of(0, "a"), cards.used(0)) == (0, 3_000)
        assert cards.touched == ({0} if blind else set())
        cards.give_back("a")
        assert cards.used(0) == 0


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(333769, id="a reload brings a kept model back beside a waiter that can never fit"),
        pytest.param(351111, id="a program that is swept never stops, and the scheduler hears nothing"),
        pytest.param(407534, id="the noise of two readings hides what a sleeping model left"),
        pytest.param(499886, id="bytes that were pardoned come back and hide as many of another"),
        pytest.param(636735, id="a model that was to go for a lease and never did is not brought back after it"),
        pytest.param(784228, id="a model dies, a reading shows it, and it is stopped before its death is noticed"),
        pytest.param(881687, id="the first of a lane needs less than another, whose way is blocked by one more"),
        pytest.param(900861, id="a model starts in an exclusive lease that was found beside another model"),
    ],
)
def test_what_the_long_run_found_stays_clean(seed: int) -> None:
    assert run_seed(seed, 200).violation is None
