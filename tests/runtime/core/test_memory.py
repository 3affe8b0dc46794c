"""Memory is free when it is seen free: proofs, quarantine, foreign processes, lost readings, lost cards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from imageworks.runtime import events as ev

Make = Callable[..., Any]
LATER = 1e6


def evicting(play: Make, gpu: Make, **rules: Any) -> Any:
    """`b` waits for the memory of `a`, whose processes are just gone; the card shows 6000 MiB in use."""
    world = play(gpu("a"), gpu("b"), **rules)
    world.measure(0)
    world.load("a")
    world.measure(6_000)
    assert world.say(ev.Arrive("r", ("b",), LATER)) == [ev.Stop("a")]
    assert world.say(ev.Stopped("a")) == []
    return world


def test_the_next_model_starts_when_the_bytes_are_seen_back(play: Make, gpu: Make) -> None:
    world = evicting(play, gpu)
    assert world.measure(6_000) == []
    assert world.is_("a") == "reclaiming"
    assert [effect.model for effect in world.measure(200)] == ["b"]
    assert world.is_("a") == "stopped"


def test_without_any_reading_the_word_of_process_control_is_enough(play: Make, gpu: Make) -> None:
    world = play(gpu("a"), gpu("b"))
    world.load("a")
    world.say(ev.Arrive("r", ("b",), LATER))
    assert [effect.model for effect in world.say(ev.Stopped("a"))] == ["b"]


def test_bytes_that_do_not_come_back_are_quarantined_with_the_pids_that_hold_them(play: Make, gpu: Make) -> None:
    world = evicting(play, gpu, reclaim_s=30.0)
    world.measure(6_000, pids={4711: 6_000})
    assert world.wait() == []
    assert world.now == 30.0
    slot = world.state.slots["a"]
    assert (slot.residency, slot.pids) == ("quarantined", (4711,))
    assert world.state.gpus[0].claims == {"a": 6_000}
    refused = world.say(ev.Arrive("s", ("a",), LATER))
    assert refused[0].code == "model_resting"
    assert "4711" in refused[0].reason


def test_a_later_good_reading_ends_a_quarantine(play: Make, gpu: Make) -> None:
    world = evicting(play, gpu)
    world.wait()
    assert [effect.model for effect in world.measure(100)] == ["b"]


def test_a_person_can_say_that_it_is_free(play: Make, gpu: Make) -> None:
    world = evicting(play, gpu)
    assert world.say(ev.Pardon("a", "root")) == []  # not quarantined yet
    world.wait()
    world.say(ev.Pardon("a", "root"))
    assert world.is_("a") == "stopped"
    assert world.moves[-1].cause == "pardoned by root"


def test_what_others_may_hold_does_not_hide_what_is_still_held(play: Make, gpu: Make) -> None:
    """`small` claims 3000 and uses 500: without looking at what `a` used itself, 2900 MiB left behind would pass."""
    world = play(gpu("a", 3_000), gpu("small", 3_000), gpu("b", 7_000))
    world.measure(0)
    world.load("small")
    world.measure(500)
    world.load("a")
    world.measure(3_500)
    world.say(ev.Unload("a"), ev.Stopped("a"))
    world.measure(2_900)
    assert world.is_("a") == "reclaiming"
    world.measure(600)
    assert world.is_("a") == "stopped"


def test_a_model_that_cannot_be_stopped_is_quarantined_and_stopped_again(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    world.load("a")
    world.say(ev.Unload("a"))
    for _ in range(2):
        world.say(ev.StopFailed("a", "stuck", (9,)))
        assert world.wait() == [ev.Stop("a")]
    world.say(ev.StopFailed("a", "stuck", (9,)))
    assert (world.is_("a"), world.state.slots["a"].pids) == ("quarantined", (9,))
    assert world.wait() == [ev.Stop("a")]
    world.say(ev.Stopped("a"))
    assert world.is_("a") == "stopped"


def test_foreign_processes_take_from_new_grants_only(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 4_000), gpu("b", 4_000))
    world.measure(0, total=10_000)
    world.load("a")
    world.measure(8_000, total=10_000, foreign_mib=4_000)
    assert world.say(ev.Arrive("r", ("b",), LATER)) == [ev.Stop("a")]
    world.say(ev.Stopped("a"))
    assert [effect.model for effect in world.measure(4_000, total=10_000, foreign_mib=4_000)] == ["b"]
    world.say(ev.Ready("b"), ev.Finish("r"))
    assert world.ask(3_000)[0] == ev.Stop("b")


def test_foreign_memory_is_seen_also_where_pids_tell_nothing(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 8_000))
    world.measure(5_000, total=10_000)
    assert world.say(ev.Arrive("r", ("a",), 5.0)) == []
    refused = world.wait()[0]
    assert "needs 8000 MiB on GPU 0, 5000 free" in refused.reason


def test_a_budget_leaves_room_for_what_others_hold_beside_it(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 10_000))
    world.measure(1_500, total=12_000)
    assert [effect.model for effect in world.say(ev.Arrive("r", ("a",), LATER))] == ["a"]


def test_a_gpu_that_was_read_and_is_not_any_more_is_closed_for_growth(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 3_000), gpu("b", 3_000))
    world.load("a")
    world.measure(3_000)
    world.say(ev.Measured({0: None}))
    assert world.say(ev.Arrive("r", ("b",), LATER)) == []
    assert world.say(ev.Arrive("s", ("a",), LATER)) == [ev.Grant("s", "a", 1)]
    assert [effect.model for effect in world.measure(3_000)] == ["b"]


def test_an_old_reading_says_nothing(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    world.measure(0)
    assert world.say(ev.Arrive("r", ("a",), LATER), now=15.5) == []
    assert [effect.model for effect in world.measure(0)] == ["a"]


def test_a_lost_card_fails_who_lives_there_and_the_others_serve(play: Make, gpu: Make) -> None:
    world = play(gpu("a"), gpu("b", 6_000, 1), gpus={0: 10_000, 1: 10_000})
    world.load("a")
    lease = world.lease(1_000, gpus=(0,))
    said = world.say(ev.Measured({1: ev.Reading(12_000, 0)}, lost=(0,)))
    assert said == [ev.Reclaim(lease.id), ev.Stop("a")]
    assert world.say(ev.Reclaimed(lease.id)) == [ev.LeaseEnded(lease.id, "gpu_lost")]
    world.say(ev.Stopped("a"))
    assert world.is_("a") == "failed"
    assert world.say(ev.Arrive("r", ("a",), LATER))[0].code == "cannot_be_loaded"
    assert world.ask(1_000, gpus=(0,))[0].code == "gpu_lost"
    assert [effect.model for effect in world.say(ev.Arrive("s", ("b",), LATER))] == ["b"]


def test_who_waits_for_a_lost_card_is_told(play: Make, gpu: Make) -> None:
    world = play(gpu("a"), gpu("b"))
    world.load("a")
    world.say(ev.Arrive("long", ("a",), LATER), ev.Arrive("r", ("b",), LATER))
    world.ask(8_000)
    said = world.say(ev.Measured({}, lost=(0,)))
    assert [effect.code for effect in said if isinstance(effect, ev.Refuse)] == ["cannot_be_loaded"]
    assert [effect.code for effect in said if isinstance(effect, ev.LeaseDenied)] == ["gpu_lost"]


def test_a_lease_is_free_when_its_bytes_are_seen_back(play: Make) -> None:
    world = play()
    world.measure(0)
    lease = world.lease(4_000)
    world.measure(4_000)
    assert [type(effect).__name__ for effect in world.release(lease)] == ["LeaseAnswered"]
    assert world.measure(4_000) == []
    assert world.measure(50) == [ev.LeaseEnded(lease.id, "released")]


def test_a_lease_whose_bytes_stay_is_quarantined(play: Make) -> None:
    world = play()
    world.measure(0)
    lease = world.lease(4_000)
    world.measure(4_000, pids={8: 4_000})
    world.release(lease)
    world.wait()
    assert (world.state.leases[lease.id].state, world.state.leases[lease.id].pids) == ("quarantined", (8,))
    assert world.say(ev.Pardon(lease.id, "root")) == [ev.LeaseEnded(lease.id, "released")]


def test_nothing_begins_to_load_while_something_is_not_seen_gone(play: Make, gpu: Make) -> None:
    world = evicting(play, gpu)
    assert world.say(ev.Arrive("s", ("a",), LATER)) == []
    assert world.ask(500)[0].__class__ is ev.LeaseQueued


def test_where_gpus_are_read_nothing_begins_before_the_first_reading(play: Make, gpu: Make) -> None:
    world = play(gpu("a"), measured=True)
    assert world.say(ev.Arrive("r", ("a",), LATER)) == []
    assert world.ask(1_000)[0].__class__ is ev.LeaseQueued
    assert [effect.model for effect in world.measure(0) if isinstance(effect, ev.Start)] == ["a"]


def test_what_a_newcomer_may_use_does_not_prove_that_others_are_gone(play: Make, gpu: Make) -> None:
    """Found by the simulator: a lease was granted beside a quarantined model, and its unused MiB seemed to free it."""
    world = play(gpu("a", 3_000))
    world.measure(0)
    world.load("a")
    world.measure(2_500)
    world.say(ev.Unload("a"), ev.Stopped("a"))
    world.wait()
    world.measure(2_500)
    world.lease(5_000)
    world.measure(2_500)
    assert world.is_("a") == "quarantined"
    world.measure(100)
    assert world.is_("a") == "stopped"


def test_what_is_pardoned_and_still_in_use_is_foreign(play: Make, gpu: Make) -> None:
    world = evicting(play, gpu)
    world.wait()
    world.measure(6_000)
    world.say(ev.Pardon("a", "root"))
    assert world.state.gpus[0].foreign_mib == 6_000
    assert world.is_("b") == "starting"
    assert world.ask(500)[0].__class__ is ev.LeaseQueued


def test_what_came_up_since_the_last_reading_counts_as_used(play: Make, gpu: Make) -> None:
    """A stranger of 3000 MiB whom no pid tells: while `a` loads, its claim hides him, and the reading is older than `a`."""
    world = play(gpu("a", 6_000))
    world.measure(3_000)
    world.say(ev.Arrive("r", ("a",), LATER))
    world.measure(3_000)
    world.say(ev.Ready("a"))
    assert [type(effect) for effect in world.ask(3_500)] == [ev.LeaseQueued]
    assert world.measure(9_000) == []
    assert [type(effect) for effect in world.measure(6_000)] == [ev.LeaseGranted]


def test_a_reading_that_shows_a_model_already_does_not_count_it_twice(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 6_000))
    world.measure(0)
    world.say(ev.Arrive("r", ("a",), LATER))
    world.measure(5_900)
    world.say(ev.Ready("a"))
    assert world.lease(4_000)
