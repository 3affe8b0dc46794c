"""What the scheduler shows of itself, how it copies itself, and which states it takes for the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from imageworks.runtime import events as ev
from imageworks.runtime.scheduler import key, position, step, view
from imageworks.runtime.timers import Timers

Make = Callable[..., Any]
LATER = 1e6


def test_a_view_adds_up(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 3_000), gpu("in", 1_000), uuids={0: "GPU-x"})
    world.load("a")
    lease = world.lease(2_000)
    world.say(ev.Arrive("r", ("in",), LATER, lease=lease.id, token=lease.token))
    world.ask(9_000, owner="bob", reason="train")
    seen = view(world.state)
    shown = seen.gpus[0]
    assert (shown.uuid, shown.budget_mib, shown.held_mib, shown.free_mib) == ("GPU-x", 10_000, 5_000, 5_000)
    assert {(each.id, each.kind, each.mib, each.state, each.within) for each in shown.holders} == {
        ("a", "model", 3_000, "ready", None),
        ("in", "model", 1_000, "starting", lease.id),
        (lease.id, "lease", 2_000, "active", None),
    }
    assert sum(each.mib for each in shown.holders if each.within is None) == shown.held_mib
    assert (shown.total_mib, shown.used_mib, shown.lost, shown.closed) == (None, None, False, False)
    assert [(call.call, call.owner, call.position) for call in seen.waiting] == [("call-2", "bob", 1)]


def test_a_view_names_what_is_quarantined(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    world.measure(0)
    world.load("a")
    world.measure(6_000, pids={3: 6_000})
    world.say(ev.Unload("a"), ev.Stopped("a"))
    world.wait()
    shown = view(world.state).gpus[0]
    assert shown.quarantined == {"a": (3,)}
    assert (shown.used_mib, shown.closed, shown.free_mib) == (6_000, True, 0)


def test_the_position_of_who_waits(play: Make, gpu: Make) -> None:
    world = play(gpu("a", load_s=4.0), gpu("b", load_s=6.0))
    world.say(ev.Arrive("r", ("a",), LATER), ev.Arrive("s", ("b",), LATER), now=0.0)
    assert position(world.state, "r") == (1, 4.0)
    assert position(world.state, "s") == (2, 10.0)
    world.say(ev.Tick(), now=1.0)
    assert position(world.state, "s") == (2, 9.0)
    world.ask(9_000)
    assert position(world.state, "call-1") == (1, None)
    with pytest.raises(KeyError):
        position(world.state, "nobody")


def test_a_copy_has_a_life_of_its_own(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 3_000), gpu("b", 9_000))
    world.load("a")
    lease = world.lease(1_000)
    world.say(ev.Arrive("r", ("b",), LATER))
    before = key(world.state, 0.0)
    other = world.state.copy()
    assert key(other, 0.0) == before
    step(other, ev.Arrive("s", ("a",), LATER), 0.0)
    step(other, ev.Release("c", lease.id, lease.token), 0.0)
    step(other, ev.Measured({0: ev.Reading(9, 9)}, lost=(0,)), 0.0)
    assert key(other, 0.0) != before
    assert key(world.state, 0.0) == before


def test_who_waits_in_a_copy_leaves_with_everything_that_it_got_there(play: Make, gpu: Make) -> None:
    world = play(gpu("a", concurrency=1))
    world.load("a")
    world.say(ev.Arrive("busy", ("a",), LATER), ev.Arrive("r", ("a",), LATER))
    other = world.state.copy()
    step(other, ev.Died("a", "killed"), 0.0)
    assert other.crowds[0].size == 1
    step(other, ev.Cancel("r"), 0.0)
    assert other.crowds[0].size == 0


def test_states_with_the_same_future_are_the_same(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    world.load("a")
    first = key(world.state, world.now)
    world.release(world.lease(1_000))
    world.say(ev.Unload("a"), ev.Stopped("a"))
    world.load("a")
    assert world.state.slots["a"].tokens == {0: 3}
    assert key(world.state, world.now) == first


def test_the_log_replayed_gives_the_same_state(play: Make, gpu: Make) -> None:
    story = [
        ev.Arrive("r", ("a",), LATER), ev.Ready("a"), ev.Arrive("s", ("b",), LATER), ev.Finish("r"), ev.Stopped("a"),
    ]  # fmt: skip
    worlds = [play(gpu("a"), gpu("b")) for _ in range(2)]
    assert worlds[0].say(*story) == worlds[1].say(*story)
    assert key(worlds[0].state, 0.0) == key(worlds[1].state, 0.0)


def test_timers_forget_what_was_cancelled_and_stay_small() -> None:
    timers = Timers()
    for number in range(10_000):
        timers.set("deadline", "r", float(number))
    timers.set("ttl", "x", 3.0)
    timers.cancel("ttl", "x")
    assert (timers.next(), len(timers.heap) < 200) == (9999.0, True)
    assert timers.due(9998.0) is None
    assert timers.due(9999.0) == ("deadline", "r")
    assert timers.next() is None
