"""Another plan while models run: who stays, who goes when idle, and who waits for whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from imageworks.runtime import events as ev

Make = Callable[..., Any]
LATER = 1e6


def granted(effects: Sequence[ev.Effect]) -> list[str]:
    return [effect.request for effect in effects if isinstance(effect, ev.Grant)]


def outdated(world: Any, *names: str, **changes: Any) -> list[ev.Effect]:
    specs = {name: replace(spec, **changes) for name, spec in world.machine.specs.items()}
    said: list[ev.Effect] = world.say(ev.Reload(replace(world.machine, specs=specs), frozenset(names)))
    return said


def test_an_outdated_model_ends_its_requests_and_serves_the_others_in_its_next_life(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    world.load("a")
    world.say(ev.Arrive("old", ("a",), LATER))
    assert outdated(world, "a") == []
    assert world.say(ev.Arrive("new", ("a",), LATER)) == []
    assert world.say(ev.Finish("old")) == [ev.Stop("a")]
    (start,) = world.say(ev.Stopped("a"))
    assert isinstance(start, ev.Start)
    assert granted(world.say(ev.Ready("a"))) == ["new"]
    assert granted(world.say(ev.Arrive("later", ("a",), LATER))) == ["later"]


def test_an_outdated_model_that_is_idle_goes_at_once_also_from_its_sleep(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 4_000), gpu("b", 4_000, grace_s=10.0, sleep_level=1, asleep_mib={0: 100}))
    world.load("a")
    world.load("b")
    assert world.wait() == [ev.Sleep("b", 1)]
    world.say(ev.Slept("b"))
    assert outdated(world, "a", "b") == [ev.Stop("a")]  # one after the other on one card
    assert world.say(ev.Stopped("a")) == [ev.Stop("b")]


def test_an_outdated_model_that_is_starting_serves_nobody_in_that_life(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    world.say(ev.Arrive("r", ("a",), LATER))
    assert outdated(world, "a") == []
    assert world.say(ev.Ready("a")) == [ev.Stop("a")]
    assert isinstance(world.say(ev.Stopped("a"))[0], ev.Start)
    assert granted(world.say(ev.Ready("a"))) == ["r"]


def test_a_second_reload_can_take_it_back(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    world.load("a")
    world.say(ev.Arrive("old", ("a",), LATER))
    outdated(world, "a")
    world.say(ev.Arrive("new", ("a",), LATER))
    assert granted(outdated(world)) == ["new"]
    assert world.say(ev.Finish("old"), ev.Finish("new")) == []
    assert world.is_("a") == "ready"


def test_a_resident_that_is_outdated_comes_back_by_itself(play: Make, gpu: Make) -> None:
    world = play(gpu("a", kept=True, resident=True), adopt=False)
    world.say(ev.Adopt({"a": "ready"}))
    assert outdated(world, "a") == [ev.Stop("a")]
    assert isinstance(world.say(ev.Stopped("a"))[0], ev.Start)


def test_more_places_are_filled_and_another_grace_counts_at_once(play: Make, gpu: Make) -> None:
    world = play(gpu("a", concurrency=1, grace_s=100.0))
    world.load("a")
    world.say(ev.Arrive("r1", ("a",), LATER), ev.Arrive("r2", ("a",), LATER))
    assert granted(outdated(world, concurrency=2)) == ["r2"]
    world.say(ev.Finish("r1"), ev.Finish("r2"))
    outdated(world, grace_s=5.0)
    assert world.wait() == [ev.Stop("a")]
    assert world.now == 5.0


def test_a_request_that_waits_too_long_for_an_outdated_model_is_told_why(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    world.load("a")
    world.say(ev.Arrive("old", ("a",), LATER))
    outdated(world, "a")
    world.say(ev.Arrive("new", ("a",), 50.0))
    (refused,) = world.say(ev.Tick(), now=51.0)
    assert "restarted when its requests end" in refused.reason


def test_who_waited_for_a_model_that_is_removed_goes_on_to_the_one_that_was_in_its_way(play: Make, gpu: Make) -> None:
    world = play(gpu("a"), gpu("b"))
    world.load("b")
    world.say(ev.Arrive("busy", ("b",), LATER))
    assert world.say(ev.Arrive("r", ("a", "b"), LATER)) == []
    left = {"b": world.machine.specs["b"]}
    assert granted(world.say(ev.Reload(replace(world.machine, specs=left)))) == ["r"]
