"""Sleep instead of a stop: where it is enough, only when it is verified, with a way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from imageworks.runtime import events as ev

Make = Callable[..., Any]
LATER = 1e6
SLEEPER = {"sleep_level": 1, "asleep_mib": {0: 500}, "asleep_host_mib": 2_000}


def test_an_idle_model_sleeps_after_its_grace_and_wakes_on_demand(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 6_000, **SLEEPER))
    world.load("a")
    assert world.wait() == [ev.Sleep("a", 1)]
    assert world.state.host_mib == 2_000
    world.say(ev.Slept("a"))
    assert (world.is_("a"), world.state.gpus[0].claims) == ("asleep", {"a": 500})
    said = world.say(ev.Arrive("r", ("a",), LATER))
    assert (type(said[0]), said[0].model) == (ev.Wake, "a")
    assert world.state.gpus[0].claims == {"a": 6_000}
    assert world.say(ev.Ready("a")) == [ev.Grant("r", "a", 1)]


def test_it_sleeps_for_another_model_where_that_is_enough(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 6_000, **SLEEPER), gpu("b", 9_000))
    world.load("a")
    assert world.say(ev.Arrive("r", ("b",), LATER)) == [ev.Sleep("a", 1)]
    assert world.say(ev.Slept("a"))[0].model == "b"


def test_it_is_stopped_where_sleep_is_not_enough(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 6_000, **SLEEPER), gpu("b", 9_600))
    world.load("a")
    assert world.say(ev.Arrive("r", ("b",), LATER)) == [ev.Stop("a")]


def test_a_sleeping_model_makes_way_altogether(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 6_000, **SLEEPER), gpu("b", 9_600))
    world.load("a")
    world.wait()
    world.say(ev.Slept("a"))
    assert world.say(ev.Arrive("r", ("b",), LATER)) == [ev.Stop("a")]
    assert world.say(ev.Stopped("a"))[0].model == "b"


def test_it_is_stopped_where_the_host_has_no_room_for_it(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 6_000, **SLEEPER), host_budget_mib=1_999)
    world.load("a")
    assert world.wait() == [ev.Stop("a")]


def test_a_person_who_unloads_it_wants_it_gone(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 6_000, **SLEEPER))
    world.load("a")
    assert world.say(ev.Unload("a")) == [ev.Stop("a")]


def test_sleep_that_fails_is_a_stop_and_twice_is_enough(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 6_000, **SLEEPER))
    for _ in range(2):
        world.load("a")
        assert world.wait() == [ev.Sleep("a", 1)]
        assert world.say(ev.SleepFailed("a", "16 GiB stay")) == [ev.Stop("a")]
        world.say(ev.Stopped("a"))
        assert world.is_("a") == "stopped"
    world.load("a")
    assert world.wait() == [ev.Stop("a")]


def test_a_wake_that_fails_is_a_stop_and_a_start(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 6_000, **SLEEPER))
    world.load("a")
    world.wait()
    world.say(ev.Slept("a"), ev.Arrive("r", ("a",), LATER))
    assert world.say(ev.WakeFailed("a", "gibberish")) == [ev.Stop("a")]
    assert world.say(ev.Stopped("a"))[0].model == "a"
    assert world.say(ev.Ready("a")) == [ev.Grant("r", "a", 3)]


def test_where_there_are_readings_sleep_needs_one(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 6_000, **SLEEPER), gpu("b", 9_000))
    world.measure(0)
    world.load("a")
    world.measure(6_000)
    world.say(ev.Arrive("r", ("b",), LATER), ev.Slept("a"))
    assert (world.is_("a"), world.measure(6_000)) == ("sleeping", [])
    assert world.measure(600)[0].model == "b"
    assert world.is_("a") == "asleep"


def test_a_model_that_sleeps_and_gives_nothing_back_is_stopped(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 6_000, **SLEEPER), gpu("b", 9_000))
    world.measure(0)
    world.load("a")
    world.measure(6_000)
    world.say(ev.Arrive("r", ("b",), LATER), ev.Slept("a"))
    assert world.wait() == [ev.Stop("a")]


def test_a_model_found_asleep_holds_what_it_keeps(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 6_000, **SLEEPER), adopt=False)
    world.say(ev.Adopt({"a": "asleep"}))
    assert (world.state.gpus[0].claims, world.state.host_mib) == ({"a": 500}, 2_000)


def test_death_in_sleep_is_noticed(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 6_000, **SLEEPER))
    world.load("a")
    world.wait()
    world.say(ev.Slept("a"))
    assert world.say(ev.Died("a", "oom")) == [ev.Stop("a")]
    world.say(ev.Stopped("a"))
    assert world.state.gpus[0].claims == {}
