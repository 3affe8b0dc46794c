"""Bugs that random schedules found in the scheduler, each as the shortest story that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from imageworks.runtime.events import (
    Acquire,
    Adopt,
    Arrive,
    Died,
    Effect,
    Event,
    Finish,
    Grant,
    Handover,
    LeaseEnded,
    LeaseGranted,
    Measured,
    Reading,
    Ready,
    Reclaim,
    Refuse,
    Release,
    Reload,
    Start,
    StartFailed,
    Stop,
    StopFailed,
    Stopped,
    Unload,
    Unsaved,
)
from imageworks.runtime.leases import Lease, LeaseAsk
from imageworks.runtime.lives import STOP_FAILURES
from imageworks.runtime.residency import Machine, Spec
from imageworks.runtime.scheduler import State, initial, step

FAR = 1e6
E = TypeVar("E")


def machine(*specs: Spec, gpus: int = 1) -> Machine:
    budget = dict.fromkeys(range(gpus), 10_000)
    uuids = {slot: f"GPU-{slot}" for slot in budget}
    return Machine({spec.id: spec for spec in specs}, budget, 1_000, 4, 16, uuids=uuids, min_residency_s=0.0)


def model(name: str, mib: int, slot: int = 0, grace_s: float = FAR, **more: object) -> Spec:
    return replace(Spec(name, {slot: mib}, 0, grace_s, 1), **more)  # type: ignore[arg-type]  # fields of Spec


def tell(state: State, *events: tuple[float, Event]) -> list[Effect]:
    """Apply events at their times; what was asked for."""
    effects: list[Effect] = []
    for now, event in events:
        effects += step(state, event, now)[1]
    return effects


def of(effects: Sequence[Effect], kind: type[E]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def reading(used: int) -> Measured:
    return Measured({0: Reading(11_000, used, 0)})


def test_bytes_that_two_departed_models_left_behind_prove_only_one_of_them_gone() -> None:
    state = initial(machine(model("a", 2_000, grace_s=0.0), model("b", 4_000, grace_s=0.0)))
    tell(
        state,
        (0.0, Adopt({"a": "ready", "b": "ready"})),
        (0.0, reading(6_000)),
        (1.0, Died("a", "killed")),
        (1.0, Died("b", "killed")),
        (2.0, Stopped("a")),
        (2.0, Stopped("b")),
        (3.0, reading(1_900)),
    )
    assert sum(slot.residency == "reclaiming" for slot in state.slots.values()) == 1
    tell(state, (4.0, reading(0)))
    assert not any(slot.residency == "reclaiming" for slot in state.slots.values())


def test_a_second_choice_that_left_the_plan_is_no_choice() -> None:
    first, second = model("a", 8_000), model("b", 8_000)
    state = initial(machine(first, second))
    tell(state, (0.0, Adopt({})), (0.0, Arrive("r", ("a", "b"), FAR)), (1.0, Reload(machine(first))))
    effects = tell(state, (2.0, StartFailed("a", "broken")))
    assert [refused.request for refused in of(effects, Refuse)] == ["r"]


def test_a_kept_model_that_was_asked_for_after_its_dismissal_stays() -> None:
    state = initial(machine(model("a", 1_000, grace_s=0.0, kept=True), model("b", 1_000)))
    effects = tell(
        state,
        (0.0, Adopt({"a": "ready"})),
        (0.0, Arrive("one", ("a",), FAR)),
        (1.0, Unload("a")),
        (2.0, Finish("one", ok=True)),
    )
    assert of(effects, Stop)  # dismissed and idle: it goes
    state = initial(machine(replace(model("a", 1_000, grace_s=0.0, kept=True), concurrency=2)))
    effects = tell(
        state,
        (0.0, Adopt({"a": "ready"})),
        (0.0, Arrive("one", ("a",), FAR)),
        (1.0, Unload("a")),
        (1.0, Arrive("two", ("a",), FAR)),
        (2.0, Finish("one", ok=True)),
        (3.0, Finish("two", ok=True)),
    )
    assert not of(effects, Stop)


def test_a_lease_whose_new_owner_cannot_be_written_down_is_reclaimed_before_it_is_free() -> None:
    state = initial(machine(model("a", 1_000)))
    ask = LeaseAsk("q", "owner", 5_000, gpus=(0,))
    given = of(tell(state, (0.0, Adopt({})), (0.0, Acquire("c", ask, FAR))), LeaseGranted)[0].lease
    effects = tell(state, (1.0, Handover("h", given.id, given.token, owner="heir")), (1.0, Unsaved(given.id)))
    assert of(effects, Reclaim)
    assert not of(effects, LeaseEnded)


def test_a_lease_that_was_just_granted_and_not_written_is_free_at_once() -> None:
    state = initial(machine(model("a", 1_000)))
    ask = LeaseAsk("q", "owner", 5_000, gpus=(0,))
    given = of(tell(state, (0.0, Adopt({})), (0.0, Acquire("c", ask, FAR))), LeaseGranted)[0].lease
    assert of(tell(state, (0.0, Unsaved(given.id))), LeaseEnded)
    assert of(tell(state, (1.0, Release("r", given.id, given.token))), LeaseEnded) == []


def test_a_model_kept_apart_from_one_that_nobody_can_stop_is_refused() -> None:
    apart = frozenset({"b"})
    state = initial(machine(model("a", 1_000, never_with=apart), model("b", 1_000, managed=False)))
    effects = tell(state, (0.0, Adopt({})), (0.0, Arrive("r", ("a",), FAR)))
    assert [refused.code for refused in of(effects, Refuse)] == ["cannot_be_loaded"]


def test_a_model_that_is_kept_apart_on_another_gpu_makes_way_when_it_is_idle() -> None:
    state = initial(machine(model("a", 1_000, never_with=frozenset({"b"})), model("b", 1_000, slot=1), gpus=2))
    effects = tell(
        state,
        (0.0, Adopt({"b": "ready"})),
        (0.0, Arrive("busy", ("b",), FAR)),
        (1.0, Arrive("waits", ("a",), FAR)),
        (50.0, Finish("busy", ok=True)),
    )
    assert [stopped.model for stopped in of(effects, Stop)] == ["b"]
    assert [started.model for started in of(tell(state, (51.0, Stopped("b"))), Start)] == ["a"]
    assert tell(state, (52.0, Ready("a")))


def test_who_waits_for_what_a_kept_model_of_the_new_plan_leaves_no_room_for_goes_on_or_is_told() -> None:
    kept = model("kept", 6_000, kept=True, resident=True)
    late, other = model("late", 6_000), model("other", 6_000)
    small = model("small", 1_000)
    busy = (0.0, Arrive("busy", ("small",), FAR))
    state = initial(machine(late, other, small, model("big", 9_000)))
    tell(state, (0.0, Adopt({"big": "ready", "small": "ready"})), (0.0, Arrive("long", ("big",), FAR)), busy)
    waiting = tell(state, (1.0, Arrive("r", ("late",), FAR)), (1.0, Arrive("s", ("late", "other", "small"), FAR)))
    assert not of(waiting, Refuse)
    effects = tell(state, (2.0, Reload(machine(kept, late, other, small))))
    assert [(refused.request, refused.code) for refused in of(effects, Refuse)] == [("r", "cannot_be_loaded")]
    served = tell(state, (3.0, Finish("busy", ok=True)))
    assert [grant.request for grant in of(served, Grant)] == ["s"]


def test_memory_that_was_back_before_the_stop_is_not_waited_for_for_ever() -> None:
    """The model died, a reading showed it, and it was to go for another before its death was noticed."""
    state = initial(replace(machine(model("a", 4_000), model("b", 2_000), model("c", 6_000)), measured=True))
    reading = {"empty": 0, "a": 3_700, "both": 5_600, "b": 1_900}

    def look(now: float, what: str) -> tuple[float, Event]:
        return now, Measured({0: Reading(12_000, reading[what])})

    tell(state, look(0.0, "empty"), (0.0, Adopt({})), (1.0, Arrive("one", ("a",), FAR)), (2.0, Ready("a")))
    tell(state, look(3.0, "a"), (3.0, Finish("one", ok=True)), (4.0, Arrive("two", ("b",), FAR)), (5.0, Ready("b")))
    tell(state, look(6.0, "both"))
    assert of(tell(state, look(7.0, "b"), (7.1, Arrive("three", ("c",), FAR))), Stop) == [Stop("a")]
    tell(state, (7.2, Stopped("a")), look(8.0, "b"))
    assert state.slots["a"].residency == "stopped"


def test_only_who_went_for_an_exclusive_lease_comes_back_after_it() -> None:
    """Two were to go, one after the other; the first did not end, so another GPU was taken, and the second never went."""
    state = initial(machine(model("a", 5_000), model("b", 4_000), gpus=2))
    other = LeaseAsk("q0", "owner", 9_000, gpus=(1,))
    held = of(tell(state, (0.0, Adopt({"a": "ready", "b": "ready"})), (0.0, Acquire("c0", other, FAR))), LeaseGranted)[
        0
    ]
    alone = LeaseAsk("q", "owner", 9_000, exclusive=True)
    assert [stop.model for stop in of(tell(state, (1.0, Acquire("c", alone, FAR))), Stop)] == ["a"]
    tell(state, (2.0, Release("r", held.lease.id, held.lease.token)))
    given = of(tell(state, *((3.0 + number, StopFailed("a", "busy")) for number in range(STOP_FAILURES))), LeaseGranted)
    assert state.slots["a"].residency == "quarantined"
    assert [(set(grant.lease.tokens), grant.lease.restore) for grant in given] == [({1}, ("a",))]


def test_who_needs_more_than_the_first_of_its_lane_is_passed_no_more_often_than_others() -> None:
    """Only the large one needs the small one's memory; that the first waits for somebody else must not hide this."""
    first, large = model("first", 3_600), model("large", 9_500)
    state = initial(machine(first, large, model("up", 6_500), replace(model("small", 1_000), concurrency=4)))
    tell(state, (0.0, Adopt({"up": "ready", "small": "ready"})))
    tell(state, (0.0, Arrive("x", ("up",), FAR)), (0.0, Arrive("y", ("small",), FAR)))
    tell(state, (1.0, Arrive("r0", ("first",), FAR)), (1.0, Arrive("r1", ("large",), FAR)))
    passed = 0
    for number in range(40):
        given = tell(state, (2.0 + number, Arrive(f"n{number}", ("small",), FAR)))
        passed += bool(of(given, Grant))
        if given:
            tell(state, (2.5 + number, Finish(f"n{number}", ok=True)))
    assert 0 < passed <= state.machine.max_overtakes + 4


def test_nothing_starts_in_an_exclusive_lease_that_was_found_beside_a_model_until_that_is_gone() -> None:
    ask = LeaseAsk("q", "owner", 6_000, gpus=(0,), exclusive=True)
    lease = Lease("lease-0-1", ask, "active", {0: 1}, {0: "GPU-0"}, FAR)
    wide = replace(model("beside", 3_000), gpu_mib={0: 3_000, 1: 3_000})  # so it cannot live inside that lease
    state = initial(machine(wide, model("inner", 1_000), gpus=2))
    inside = Arrive("r", ("inner",), FAR, 0, "lease-0-1", 1)
    assert not of(tell(state, (0.0, Adopt({"beside": "ready"}, leases=(lease,))), (1.0, inside)), Start)
    begun = tell(state, (2.0, Unload("beside")), (3.0, Stopped("beside")))
    assert [start.model for start in of(begun, Start)] == ["inner"]
