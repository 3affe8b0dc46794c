"""A failing schedule becomes small and still fails for the same reason."""

from __future__ import annotations

from imageworks.simulation.bugs import BUGS, caught
from imageworks.simulation.campaign import play
from imageworks.simulation.scenario import draw
from imageworks.simulation.shrink import reduced, shrink

STEPS = 200


def test_what_is_left_of_a_schedule_shows_the_same_bug() -> None:
    bug = next(each for each in BUGS if each.number == 16)
    seed = caught(bug, 50)
    assert seed is not None
    scenario = draw(seed, STEPS)
    small = shrink(scenario, STEPS, bug.number, bug.parts)
    world = play(reduced(scenario, small.acts, small.tamed), STEPS, bug.parts())
    assert [each.number for each in world.book.violations][:1] == [16]
    assert len(small.acts) <= 4 < len(scenario.acts)


def test_dropping_acts_leaves_the_others_as_they_were() -> None:
    scenario = draw(3, STEPS)
    assert reduced(scenario, [5, 2], ()).acts == (scenario.acts[2], scenario.acts[5])


def test_a_tamed_operation_always_goes_well() -> None:
    scenario = next(
        each
        for each in (draw(seed, STEPS) for seed in range(50))
        if any(h.outcome != "ok" for h in each.habits["m1", "start"])
    )
    tamed = reduced(scenario, (), {("m1", "start")})
    assert {habit.outcome for habit in tamed.habits["m1", "start"]} == {"ok"}
    assert tamed.habits["m1", "stop"] == scenario.habits["m1", "stop"]
