"""The scheduler's promises one by one; the random search for counterexamples is test_scheduler_laws.py."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from imageworks.runtime.events import (
    Adopt,
    Arrive,
    Cancel,
    Died,
    Drain,
    Effect,
    Event,
    Finish,
    Grant,
    Moved,
    Ready,
    Refuse,
    Start,
    StartFailed,
    Stop,
    StopFailed,
    Stopped,
    Tick,
    Unload,
)
from imageworks.runtime.residency import LAW, Machine, Spec
from imageworks.runtime.scheduler import State, backoff_s, initial, next_deadline, step

LATER = 1000.0
OVERTAKES = 32


def plain(effects: tuple[Effect, ...]) -> list[Effect]:
    """Without the log, the tokens and the lives, which have tests of their own."""
    bare: list[Effect] = []
    for effect in effects:
        match effect:
            case Moved():
                pass
            case Start(model):
                bare.append(Start(model))
            case Grant(request, model):
                bare.append(Grant(request, model))
            case _:
                bare.append(effect)
    return bare


class Play:
    """A machine and its story: `say` applies an event and returns the effects."""

    def __init__(self, *specs: Spec, gpus: Mapping[int, int] | None = None, count: int = 9, queue: int = 9) -> None:
        machine = Machine({spec.id: spec for spec in specs}, gpus or {0: 10}, 10, count, queue)
        self.state: State = initial(machine)
        self.now = 0.0

    def say(self, *events: Event, now: float | None = None) -> tuple[Effect, ...]:
        self.now = self.now if now is None else now
        effects: list[Effect] = []
        for event in events:
            self.state, new = step(self.state, event, self.now)
            effects += plain(new)
        return tuple(effects)

    def load(self, model: str, now: float | None = None) -> None:
        self.say(Arrive(f"load-{model}", (model,), LATER), now=now)
        self.say(Ready(model), Finish(f"load-{model}"))


def gpu(name: str, mib: int = 6, *, kept: bool = False, resident: bool = False, concurrency: int = 4) -> Spec:
    return Spec(name, {0: mib}, 0, 60.0, concurrency, kept=kept, resident=resident)


def adopted(*specs: Spec, gpus: Mapping[int, int] | None = None, count: int = 9, queue: int = 9) -> Play:
    play = Play(*specs, gpus=gpus, count=count, queue=queue)
    play.say(Adopt({}))
    return play


def test_many_first_requests_cause_one_start_and_are_all_granted_when_it_is_ready() -> None:
    play = adopted(gpu("a"))
    assert play.say(*(Arrive(f"r{i}", ("a",), LATER) for i in range(3))) == (Start("a"),)
    assert play.say(Ready("a")) == (Grant("r0", "a"), Grant("r1", "a"), Grant("r2", "a"))


def test_nothing_is_granted_or_started_before_the_world_was_looked_at() -> None:
    play = Play(gpu("a"), gpu("b", 3))
    assert play.say(Arrive("r", ("a",), LATER), Arrive("s", ("b",), LATER)) == ()
    assert play.say(Adopt({"a": "ready"})) == (Grant("r", "a"), Start("b"))


def test_a_model_found_starting_is_not_started_again() -> None:
    play = Play(gpu("a"))
    assert play.say(Adopt({"a": "starting"}), Arrive("r", ("a",), LATER)) == ()
    assert play.say(Ready("a")) == (Grant("r", "a"),)


def test_an_idle_model_makes_room_and_the_next_starts_only_when_it_is_gone() -> None:
    play = adopted(gpu("a"), gpu("b"))
    play.load("a")
    assert play.say(Arrive("r", ("b",), LATER)) == (Stop("a"),)
    assert play.say(Tick(), Arrive("s", ("b",), LATER)) == ()
    assert play.say(Stopped("a")) == (Start("b"),)


def test_a_model_with_a_request_in_flight_is_not_evicted() -> None:
    play = adopted(gpu("a"), gpu("b"))
    play.load("a")
    play.say(Arrive("r", ("a",), LATER))
    assert play.say(Arrive("s", ("b",), LATER)) == ()
    assert play.say(Finish("r")) == (Stop("a"),)


def test_the_least_recently_used_goes_first() -> None:
    play = adopted(gpu("a", 3), gpu("b", 3), gpu("c", 6))
    play.load("a", now=1.0)
    play.load("b", now=2.0)
    assert play.say(Arrive("r", ("c",), LATER), now=3.0) == (Stop("a"),)


def test_only_models_in_the_way_are_evicted() -> None:
    play = adopted(gpu("a", 6), Spec("other", {1: 6}, 0, 60.0, 4), gpu("b", 6), gpus={0: 10, 1: 10})
    play.load("other", now=1.0)
    play.load("a", now=2.0)
    assert play.say(Arrive("r", ("b",), LATER), now=3.0) == (Stop("a"),)


def test_the_number_of_models_is_a_limit_of_its_own() -> None:
    play = adopted(gpu("a", 1), gpu("b", 1), count=1)
    play.load("a")
    assert play.say(Arrive("r", ("b",), LATER)) == (Stop("a"),)


def test_host_memory_is_a_limit_of_its_own() -> None:
    play = adopted(Spec("a", {}, 6, 60.0, 1), Spec("b", {}, 6, 60.0, 1))
    play.load("a")
    assert play.say(Arrive("r", ("b",), LATER)) == (Stop("a"),)


def test_two_starts_on_one_gpu_follow_each_other() -> None:
    play = adopted(gpu("a", 3), gpu("b", 3))
    assert play.say(Arrive("r", ("a",), LATER), Arrive("s", ("b",), LATER)) == (Start("a"),)
    assert play.say(Ready("a")) == (Grant("r", "a"), Start("b"))


def test_starts_on_two_gpus_run_together() -> None:
    play = adopted(gpu("a"), Spec("b", {1: 6}, 0, 60.0, 4), gpus={0: 10, 1: 10})
    assert play.say(Arrive("r", ("a",), LATER), Arrive("s", ("b",), LATER)) == (Start("a"), Start("b"))


def test_requests_beyond_the_models_concurrency_wait() -> None:
    play = adopted(gpu("a", concurrency=1))
    play.say(Arrive("r", ("a",), LATER), Arrive("s", ("a",), LATER))
    assert play.say(Ready("a")) == (Grant("r", "a"),)
    assert play.say(Finish("r")) == (Grant("s", "a"),)


def test_a_waiter_of_another_model_is_overtaken_a_bounded_number_of_times() -> None:
    play = adopted(gpu("a", concurrency=99), gpu("b"), queue=99)
    play.load("a")
    play.say(Arrive("long", ("a",), LATER), Arrive("waiter", ("b",), LATER))
    granted = [play.say(Arrive(f"r{i}", ("a",), LATER)) for i in range(OVERTAKES + 5)]
    assert sum(bool(effects) for effects in granted) == OVERTAKES
    play.say(*(Finish(f"r{i}") for i in range(OVERTAKES)))
    assert play.say(Finish("long")) == (Stop("a"),)
    assert play.say(Stopped("a")) == (Start("b"),)


def test_a_full_queue_refuses_but_a_free_model_still_serves() -> None:
    play = adopted(gpu("a"), gpu("b"), queue=1)
    play.load("a")
    play.say(Arrive("long", ("a",), LATER), Arrive("r", ("b",), LATER))
    refused = play.say(Arrive("s", ("b",), LATER))
    assert isinstance(refused[0], Refuse)
    assert refused[0].code == "queue_full"
    assert play.say(Arrive("t", ("a",), LATER)) == (Grant("t", "a"),)


def test_a_request_waits_no_longer_than_its_deadline() -> None:
    play = adopted(gpu("a"))
    play.say(Arrive("r", ("a",), 5.0))
    assert next_deadline(play.state, 0.0) == 5.0
    refused = play.say(Tick(), now=5.0)
    assert [(effect.code, effect.request) for effect in refused if isinstance(effect, Refuse)] == [
        ("queue_timeout", "r")
    ]


def test_deadlines_hold_also_before_the_world_was_looked_at() -> None:
    play = Play(gpu("a"))
    play.say(Arrive("r", ("a",), 5.0))
    assert len(play.say(Tick(), now=5.0)) == 1


def test_waiters_get_the_reason_of_a_failed_start_and_the_next_request_retries_after_a_rest() -> None:
    play = adopted(gpu("a"))
    play.say(Arrive("r", ("a",), LATER))
    refused, stop = sorted(play.say(StartFailed("a", "out of memory")), key=lambda effect: isinstance(effect, Stop))
    assert isinstance(refused, Refuse)
    assert "out of memory" in refused.reason
    assert stop == Stop("a")
    play.say(Stopped("a"))
    assert play.state.slots["a"].residency == "failed"
    resting = play.say(Arrive("s", ("a",), LATER), now=backoff_s(1) - 1.0)
    assert isinstance(resting[0], Refuse)
    assert (resting[0].code, resting[0].retry_after_s) == ("model_resting", 1.0)
    assert play.say(Arrive("t", ("a",), LATER), now=backoff_s(1)) == (Start("a"),)


def test_the_rest_grows_and_is_bounded() -> None:
    assert [backoff_s(n) for n in (1, 2, 3, 4)] == [5.0, 10.0, 20.0, 40.0]
    assert backoff_s(10_000) == 300.0


def test_a_role_request_moves_to_its_next_model_when_the_first_cannot_start() -> None:
    play = adopted(gpu("a"), gpu("b"))
    play.say(Arrive("r", ("a", "b"), LATER))
    assert play.say(StartFailed("a", "broken")) == (Stop("a"),)
    assert play.say(Stopped("a")) == (Start("b"),)
    assert play.say(Ready("b")) == (Grant("r", "b"),)


def test_a_first_death_is_healed_at_once_and_a_model_that_keeps_dying_rests() -> None:
    play = adopted(gpu("a"))
    play.load("a")
    assert play.say(Died("a", "killed")) == (Stop("a"),)
    play.say(Arrive("r", ("a",), LATER))
    assert play.say(Stopped("a")) == (Start("a"),)
    play.say(Ready("a"), Finish("r", ok=False))
    play.say(Died("a", "killed again"), Stopped("a"))
    refused = play.say(Arrive("s", ("a",), LATER))
    assert isinstance(refused[0], Refuse)
    assert "killed again" in refused[0].reason


def test_a_served_request_ends_the_series_of_failures() -> None:
    play = adopted(gpu("a"))
    play.load("a")
    for attempt in range(5):
        play.say(Died("a", "killed"), Arrive(f"r{attempt}", ("a",), LATER))
        assert play.say(Stopped("a")) == (Start("a"),)
        play.say(Ready("a"), Finish(f"r{attempt}"))


def test_an_idle_model_is_unloaded_after_its_grace_and_not_before() -> None:
    play = adopted(gpu("a"))
    play.load("a", now=10.0)
    assert next_deadline(play.state, 10.0) == 70.0
    assert play.say(Tick(), now=69.9) == ()
    assert play.say(Tick(), now=70.0) == (Stop("a"),)


def test_a_kept_model_is_neither_unloaded_nor_evicted() -> None:
    play = adopted(gpu("a", kept=True), gpu("b"))
    play.load("a")
    assert play.say(Tick(), now=9e9) == ()
    refused = play.say(Arrive("r", ("b",), 9e12))
    assert isinstance(refused[0], Refuse)
    assert refused[0].code == "cannot_be_loaded"


def test_residents_are_started_at_once_and_restarted_when_they_die() -> None:
    play = Play(gpu("a", 5, kept=True, resident=True), gpu("b", 5, kept=True, resident=True))
    assert play.say(Adopt({})) == (Start("a"),)
    assert play.say(Ready("a")) == (Start("b"),)
    assert play.say(Ready("b")) == ()
    assert play.say(Died("a", "killed")) == (Stop("a"),)
    assert play.say(Stopped("a")) == (Start("a"),)
    play.say(StartFailed("a", "broken"), Stopped("a"))
    assert next_deadline(play.state, 0.0) == backoff_s(2)
    assert play.say(Tick(), now=backoff_s(2)) == (Start("a"),)


def test_unload_ends_also_a_resident_which_stays_away_until_asked_for() -> None:
    play = Play(gpu("a", kept=True, resident=True))
    play.say(Adopt({"a": "ready"}))
    assert play.say(Unload("a")) == (Stop("a"),)
    assert play.say(Stopped("a"), Tick()) == ()
    assert play.say(Arrive("r", ("a",), LATER)) == (Start("a"),)


def test_unload_waits_for_the_request_in_flight() -> None:
    play = adopted(gpu("a"))
    play.load("a")
    play.say(Arrive("r", ("a",), LATER))
    assert play.say(Unload("a")) == ()
    assert play.say(Finish("r")) == (Stop("a"),)


def test_what_could_not_be_stopped_still_counts_and_is_stopped_again() -> None:
    play = adopted(gpu("a"), gpu("b"))
    play.load("a")
    play.say(Arrive("r", ("b",), LATER))
    assert play.say(StopFailed("a", "no answer")) == ()
    due = next_deadline(play.state, play.now)
    assert due is not None
    assert play.say(Tick(), now=due) == (Stop("a"),)
    assert play.say(Stopped("a")) == (Start("b"),)


def test_a_request_that_left_the_queue_is_never_answered() -> None:
    play = adopted(gpu("a"))
    play.say(Arrive("r", ("a",), LATER), Cancel("r"))
    assert play.say(Ready("a")) == ()


def test_draining_refuses_who_waits_and_starts_nothing() -> None:
    play = adopted(gpu("a"), gpu("b"))
    play.load("a")
    play.say(Arrive("r", ("a",), LATER), Arrive("s", ("b",), LATER))
    assert [effect.request for effect in play.say(Drain()) if isinstance(effect, Refuse)] == ["s"]
    assert play.say(Finish("r")) == ()
    assert isinstance(play.say(Arrive("t", ("a",), LATER))[0], Refuse)


def test_a_remote_model_is_ready_from_the_start_and_never_stopped() -> None:
    play = adopted(Spec("far", {}, 0, 1.0, 4, counted=False, managed=False))
    assert play.say(Arrive("r", ("far",), LATER)) == (Grant("r", "far"),)
    assert play.say(Finish("r"), Unload("far"), Tick(), now=9e9) == ()


def test_a_small_model_may_start_while_a_large_one_waits_only_if_both_fit() -> None:
    play = adopted(gpu("busy", 6), gpu("large", 8), gpu("small", 3))
    play.load("busy")
    play.say(Arrive("r", ("busy",), LATER), Arrive("s", ("large",), LATER))
    assert play.say(Arrive("t", ("small",), LATER)) == ()
    assert play.say(Finish("r")) == (Stop("busy"),)


@pytest.mark.parametrize("event", [Finish("nobody"), Arrive("r", (), LATER)])
def test_events_that_cannot_be_are_bugs(event: Event) -> None:
    with pytest.raises(ValueError, match="not"):
        adopted(gpu("a")).say(event)


def test_the_table_of_lives_has_no_way_around_stopping() -> None:
    found = {"found starting", "found ready", "found asleep"}
    law = {(before, step): after for (before, step), after in LAW.items() if step not in found}
    assert {before for (before, _), after in law.items() if after in ("stopped", "failed")} == {
        "reclaiming",
        "quarantined",
    }
    assert {before for (before, _), after in law.items() if after == "reclaiming"} == {"stopping"}
    assert {before for (before, _), after in law.items() if after == "ready"} == {"starting", "waking"}
