"""Residents of a group that starts sequentially begin one after the other, also on different devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from imageworks.contract import Policy, to_json
from imageworks.runtime.events import Adopt, Arrive, Event, Ready, Start, StartFailed, Stopped
from imageworks.runtime.residency import Machine, Spec, machine
from imageworks.runtime.scheduler import State, initial, step
from imageworks.runtime.table import decode

Make = Callable[..., Any]


def two(*, in_turn: bool) -> State:
    """Two residents on two GPUs."""
    specs = [Spec(name, {slot: 5}, 0, 60.0, 1, kept=True, resident=True) for slot, name in enumerate("ab")]
    if in_turn:
        specs = [replace(spec, in_turn_with=frozenset("ab") - {spec.id}) for spec in specs]
    return initial(Machine({spec.id: spec for spec in specs}, {0: 10, 1: 10}, 0, 4, 4))


def starts(state: State, event: Event, now: float) -> list[str]:
    """Which models are started by it."""
    return [effect.model for effect in step(state, event, now)[1] if isinstance(effect, Start)]


@pytest.mark.parametrize(("in_turn", "at_once"), [(True, ["a"]), (False, ["a", "b"])])
def test_in_turn_means_one_start_at_a_time(in_turn: bool, at_once: list[str]) -> None:  # noqa: FBT001 - a table's column
    state = two(in_turn=in_turn)
    assert starts(state, Adopt({}), 0.0) == at_once
    assert starts(state, Ready("a"), 1.0) == (["b"] if in_turn else [])


def test_a_start_that_fails_does_not_hold_up_the_next() -> None:
    state = two(in_turn=True)
    starts(state, Adopt({}), 0.0)
    assert starts(state, StartFailed("a", "no memory"), 1.0) == ["b"]
    assert starts(state, Stopped("a"), 2.0) == []


def test_a_request_does_not_wait_for_its_turn() -> None:
    state = two(in_turn=True)
    starts(state, Adopt({}), 0.0)
    assert starts(state, Arrive("r", ("b",), 99.0), 1.0) == ["b"]


def test_the_routing_table_says_who_starts_in_turn(route: Make, table: Make) -> None:
    policy = Policy("concurrent_full", 4, 4096, ("a", "b"), (("a", "b"),))
    made = decode(to_json(table(route("a"), route("b"), route("c"), policy=policy)).encode())
    specs = machine(made).specs
    assert [sorted(specs[name].in_turn_with) for name in "abc"] == [["b"], ["a"], []]
