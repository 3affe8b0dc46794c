"""Who is served before whom, who goes for whom, and what becomes of models that fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from imageworks.runtime import events as ev
from imageworks.runtime.lives import FATAL_S
from imageworks.runtime.scheduler import backoff_s

Make = Callable[..., Any]
LATER = 1e6


def granted(effects: Sequence[ev.Effect]) -> list[str]:
    return [effect.request for effect in effects if isinstance(effect, ev.Grant)]


def swaps(world: Any, requests: Sequence[str], *, at_once: bool = True) -> tuple[int, dict[str, int]]:
    """Serve requests for the models named, one at a time; how many loads, and how often each request was passed."""
    waiting = {f"r{number}": (number, model) for number, model in enumerate(requests)}
    passed = dict.fromkeys(waiting, 0)
    said: list[ev.Effect] = []
    for request, (_, model) in waiting.items():
        said += world.say(ev.Arrive(request, (model,), LATER))
    assert at_once
    loads, open_ = 0, dict(waiting)
    for _ in range(20 * len(requests)):
        if not said:
            break
        effect, *said = said
        world.now += 1.0
        if isinstance(effect, ev.Start):
            loads += 1
            said += world.say(ev.Ready(effect.model))
        elif isinstance(effect, ev.Stop):
            said += world.say(ev.Stopped(effect.model))
        elif isinstance(effect, ev.Grant):
            age, _ = open_.pop(effect.request)
            for other, (older, _) in open_.items():
                passed[other] += older < age
            said += world.say(ev.Finish(effect.request))
    assert not open_, "not everybody was served"
    return loads, passed


def test_interleaved_requests_are_collected_and_nobody_is_passed_too_often(play: Make, gpu: Make) -> None:
    world = play(gpu("a", concurrency=1), gpu("b", concurrency=1), queue=500, max_overtakes=16)
    loads, passed = swaps(world, "ab" * 50)
    assert max(passed.values()) <= 16
    assert loads <= 8


def test_abab_does_not_swap_four_times(play: Make, gpu: Make) -> None:
    loads, _ = swaps(play(gpu("a"), gpu("b")), "abab")
    assert loads == 2


def test_with_three_models_the_bound_is_shared_out(play: Make, gpu: Make) -> None:
    models = [gpu(name, concurrency=1) for name in "abc"]
    loads, passed = swaps(play(*models, queue=500, max_overtakes=16), "abc" * 60)
    assert max(passed.values()) <= 16
    assert loads <= 20


def test_higher_priority_comes_first_but_not_for_ever(play: Make, gpu: Make) -> None:
    world = play(gpu("a", concurrency=1), queue=99, max_overtakes=3)
    world.load("a")
    world.say(ev.Arrive("busy", ("a",), LATER), ev.Arrive("low", ("a",), LATER))
    order = ["busy"]
    for number in range(6):
        world.say(ev.Arrive(f"high{number}", ("a",), LATER, priority=1))
        order += granted(world.say(ev.Finish(order[-1])))
    assert order == ["busy", "high0", "high1", "high2", "low", "high3", "high4"]


def test_a_waiter_of_higher_priority_gets_its_model_first(play: Make, gpu: Make) -> None:
    world = play(gpu("a"), gpu("b"), gpu("c"))
    world.load("a")
    world.say(ev.Arrive("long", ("a",), LATER), ev.Arrive("low", ("b",), LATER))
    world.say(ev.Arrive("high", ("c",), LATER, priority=1), ev.Finish("long"))
    assert world.say(ev.Stopped("a"))[0].model == "c"


def test_a_stream_of_urgent_requests_does_not_starve_another_model(play: Make, gpu: Make) -> None:
    world = play(gpu("a", concurrency=1), gpu("b"), queue=999, max_overtakes=4)
    world.load("a")
    world.say(ev.Arrive("u0", ("a",), LATER, priority=9), ev.Arrive("meek", ("b",), LATER))
    passes = 0
    for number in range(1, 50):
        world.say(ev.Arrive(f"u{number}", ("a",), LATER, priority=9))
        said = world.say(ev.Finish(f"u{number - 1}"))
        passes += len(granted(said))
        if ev.Stop("a") in said:
            break
    assert passes == 4
    assert world.say(ev.Stopped("a"))[0].model == "b"


def test_what_is_cheap_to_bring_back_goes_first(play: Make, gpu: Make) -> None:
    world = play(gpu("dear", 3_000), gpu("cheap", 3_000), gpu("big", 6_000))
    world.say(ev.Arrive("x", ("dear",), LATER), now=0.0)
    world.say(ev.Ready("dear"), ev.Finish("x"), now=90.0)
    world.say(ev.Arrive("y", ("cheap",), LATER))
    world.say(ev.Ready("cheap"), now=92.0)
    world.say(ev.Finish("y"), now=100.0)
    assert world.say(ev.Arrive("z", ("big",), LATER)) == [ev.Stop("cheap")]


def test_what_is_asked_for_often_stays(play: Make, gpu: Make) -> None:
    world = play(gpu("often", 3_000, load_s=5.0), gpu("seldom", 3_000, load_s=5.0), gpu("big", 6_000))
    world.say(ev.Arrive("x", ("often",), LATER))
    world.say(ev.Ready("often"), ev.Finish("x"), now=5.0)
    for number in range(9):
        world.say(ev.Arrive(f"o{number}", ("often",), LATER), ev.Finish(f"o{number}"))
    world.say(ev.Arrive("y", ("seldom",), LATER))
    world.say(ev.Ready("seldom"), ev.Finish("y"), now=10.0)
    assert world.say(ev.Arrive("z", ("big",), LATER)) == [ev.Stop("seldom")]


def test_a_model_just_loaded_stays_for_a_while(play: Make, gpu: Make) -> None:
    world = play(gpu("a"), gpu("b"), min_residency_s=20.0)
    world.say(ev.Arrive("x", ("a",), LATER))
    world.say(ev.Ready("a"), ev.Finish("x"), now=3.0)
    assert world.say(ev.Arrive("y", ("b",), LATER)) == []
    assert world.wait() == [ev.Stop("a")]
    assert world.now == 15.0  # four times its load


def test_the_minimum_residency_has_an_upper_bound(play: Make, gpu: Make) -> None:
    world = play(gpu("a"), gpu("b"), min_residency_s=20.0)
    world.say(ev.Arrive("x", ("a",), LATER))
    world.say(ev.Ready("a"), ev.Finish("x"), ev.Arrive("y", ("b",), LATER), now=100.0)
    assert world.wait() == [ev.Stop("a")]
    assert world.now == 120.0


def test_models_that_do_not_go_together_are_never_loaded_together(play: Make, gpu: Make) -> None:
    one = replace(gpu("a", 1_000), never_with=frozenset("b"))
    world = play(one, gpu("b", 1_000, 1), gpus={0: 10_000, 1: 10_000})
    world.load("b")
    assert world.say(ev.Arrive("r", ("a",), LATER)) == [ev.Stop("b")]
    assert world.say(ev.Stopped("b"))[0].model == "a"
    world.say(ev.Ready("a"), ev.Finish("r"))
    assert world.say(ev.Arrive("s", ("b",), LATER)) == [ev.Stop("a")]


def test_what_does_not_go_with_a_kept_model_is_refused(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 1_000, kept=True), gpu("b", 1_000, never_with=frozenset("a")))
    assert world.say(ev.Arrive("r", ("b",), LATER))[0].code == "cannot_be_loaded"


def test_six_failures_in_a_row_are_fatal_with_the_reason(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    for number in range(6):
        said = world.say(ev.Arrive(f"r{number}", ("a",), LATER))
        assert said[0].model == "a"
        codes = [effect.code for effect in world.say(ev.StartFailed("a", "no kernel")) if isinstance(effect, ev.Refuse)]
        assert codes == ["model_fatal" if number == 5 else "start_failed"]
        world.say(ev.Stopped("a"))
        world.now += backoff_s(number + 1)
    refused = world.say(ev.Arrive("late", ("a",), LATER))[0]
    assert (refused.code, refused.retry_after_s) == ("model_fatal", None)
    assert "no kernel" in refused.reason
    world.wait()
    assert world.say(ev.Arrive("again", ("a",), LATER))[0].model == "a"
    world.say(ev.StartFailed("a", "no kernel"), ev.Stopped("a"))
    assert world.say(ev.Arrive("once more", ("a",), LATER))[0].code == "model_fatal"


def test_a_fatal_rest_is_a_long_one(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    for number in range(6):
        world.say(ev.Arrive(f"r{number}", ("a",), LATER), ev.StartFailed("a", "x"), ev.Stopped("a"))
        world.now += backoff_s(number + 1)
    began = world.now - backoff_s(6)
    world.wait()
    assert world.now == began + FATAL_S


def test_unload_ends_a_fatal_rest(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    for number in range(6):
        world.say(ev.Arrive(f"r{number}", ("a",), LATER), ev.StartFailed("a", "x"), ev.Stopped("a"))
        world.now += backoff_s(number + 1)
    world.say(ev.Unload("a"))
    assert world.say(ev.Arrive("s", ("a",), LATER))[0].model == "a"


def test_a_start_that_failed_by_its_neighbours_is_tried_again_at_once_and_once(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    world.say(ev.Arrive("r", ("a",), LATER))
    assert world.say(ev.StartFailed("a", "profiling", again=True)) == [ev.Stop("a")]
    assert world.say(ev.Stopped("a"))[0].model == "a"
    said = world.say(ev.StartFailed("a", "profiling", again=True))
    assert [effect.code for effect in said if isinstance(effect, ev.Refuse)] == ["start_failed"]


def test_a_life_is_another_one_after_every_start_and_stop(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    world.load("a")
    world.say(ev.Arrive("r", ("a",), LATER))
    world.say(ev.Died("a", "killed"), ev.Stopped("a"))
    assert world.state.slots["a"].life == 2
    world.say(ev.Arrive("s", ("a",), LATER))
    assert world.say(ev.Ready("a")) == [ev.Grant("s", "a", 3)]


def test_measured_load_times_are_known_again_after_a_restart(play: Make, gpu: Make) -> None:
    world = play(gpu("a"), adopt=False)
    world.say(ev.Adopt({}, load_s={"a": 7.0}))
    assert world.state.slots["a"].load_s == 7.0


@pytest.mark.parametrize(
    "gone", [ev.Stopped("a"), ev.Slept("a"), ev.Ready("a"), ev.StopFailed("a", "x"), ev.Died("x", "y")]
)
def test_answers_that_nobody_waits_for_change_nothing(play: Make, gpu: Make, gone: ev.Event) -> None:
    world = play(gpu("a"))
    assert world.say(gone) == []
    assert world.is_("a") == "stopped"


def test_every_transition_is_told_in_order(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    world.load("a")
    world.say(ev.Unload("a"), ev.Stopped("a"))
    assert [(move.before, move.after) for move in world.moves] == [
        ("stopped", "starting"), ("starting", "ready"), ("ready", "stopping"), ("stopping", "reclaiming"),
        ("reclaiming", "stopped"),
    ]  # fmt: skip
    assert [move.cause for move in world.moves][:3] == ["a request waits", "it answers", "unloaded by a person"]


# another plan


def test_a_model_that_the_plan_dropped_finishes_and_goes(play: Make, gpu: Make) -> None:
    world = play(gpu("a"), gpu("b"))
    world.load("a")
    world.say(ev.Arrive("r", ("a",), LATER), ev.Arrive("s", ("b",), LATER))
    other = replace(world.machine, specs={"c": gpu("c")})
    said = world.say(ev.Reload(other))
    assert [(effect.request, effect.code) for effect in said if isinstance(effect, ev.Refuse)] == [
        ("s", "model_removed")
    ]
    assert world.say(ev.Arrive("t", ("a",), LATER))[0].code == "model_removed"
    assert world.say(ev.Finish("r")) == [ev.Stop("a")]
    world.say(ev.Stopped("a"))
    assert list(world.state.slots) == ["c"]
    assert world.say(ev.Arrive("u", ("c",), LATER))[0].model == "c"


def test_a_model_that_needs_more_keeps_what_it_has_until_it_goes(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 3_000))
    world.load("a")
    world.say(ev.Reload(replace(world.machine, specs={"a": gpu("a", 5_000)})))
    assert world.state.gpus[0].claims == {"a": 3_000}
    world.say(ev.Unload("a"), ev.Stopped("a"), ev.Arrive("r", ("a",), LATER))
    assert world.state.gpus[0].claims == {"a": 5_000}


def test_a_new_plan_gives_failed_models_another_chance(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    world.say(ev.Arrive("r", ("a",), LATER), ev.StartFailed("a", "x"), ev.Stopped("a"))
    world.say(ev.Reload(world.machine))
    assert world.say(ev.Arrive("s", ("a",), LATER))[0].model == "a"


def test_new_residents_of_a_plan_come_up(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    said = world.say(ev.Reload(replace(world.machine, specs={"b": gpu("b", kept=True, resident=True)})))
    assert [effect.model for effect in said if isinstance(effect, ev.Start)] == ["b"]


def test_nobody_comes_up_beside_a_model_that_waits_and_does_not_go_with_it(play: Make, gpu: Make) -> None:
    """Found by a random story: both others came up again as soon as they were gone, so that `a` never did."""
    apart = frozenset("a")
    world = play(
        gpu("a", 1_000), gpu("b", 1_000, never_with=apart), gpu("c", 1_000, 1, never_with=apart),
        gpus={0: 10_000, 1: 10_000},
    )  # fmt: skip
    world.load("b")
    world.load("c")
    world.say(ev.Arrive("r", ("a",), LATER), ev.Arrive("s", ("b",), LATER), ev.Arrive("t", ("c",), LATER))
    for name in ("s", "t"):
        if name in world.state.granted:
            world.say(ev.Finish(name))
    assert {world.is_("b"), world.is_("c")} == {"stopping"}
    assert world.say(ev.Stopped("b")) == []
    assert [effect.model for effect in world.say(ev.Stopped("c")) if isinstance(effect, ev.Start)] == ["a"]


def test_who_a_model_was_loaded_for_is_served_though_another_was_passed_often_enough(play: Make, gpu: Make) -> None:
    """Else it would go again for nothing, and come up again for the same request, for ever."""
    models = gpu("a"), gpu("wide", 6_000, 0, 1), gpu("busy", 8_000, 1), gpu("next", 8_000, 1)
    world = play(*models, gpus={0: 10_000, 1: 10_000}, max_overtakes=0)
    world.load("busy")
    world.say(ev.Arrive("long", ("busy",), LATER))
    world.say(ev.Arrive("first", ("next",), LATER), ev.Arrive("due", ("wide",), LATER))
    assert [effect.model for effect in world.say(ev.Arrive("r", ("a",), LATER), ev.Arrive("s", ("a",), LATER))] == ["a"]
    assert granted(world.say(ev.Ready("a"))) == ["r"]  # and then it is the turn of who was passed
