"""Leases: granted whole or not at all, fenced by tokens, ended only with proof."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from imageworks.runtime import events as ev
from imageworks.runtime.leases import LeaseAsk
from imageworks.runtime.residency import Machine
from imageworks.runtime.scheduler import initial, step

Make = Callable[..., Any]
LATER = 1e6


def kinds(effects: Sequence[ev.Effect]) -> list[str]:
    return [type(effect).__name__ for effect in effects]


def codes(effects: Sequence[ev.Effect]) -> list[str]:
    return [effect.code for effect in effects if isinstance(effect, ev.LeaseDenied | ev.Refuse)]


def one(effects: Sequence[ev.Effect], kind: type[Any]) -> Any:
    found = [effect for effect in effects if isinstance(effect, kind)]
    assert len(found) == 1, effects
    return found[0]


def test_a_lease_that_fits_is_granted_at_once_with_a_token_for_each_gpu(play: Make) -> None:
    world = play(gpus={0: 10_000, 1: 10_000}, uuids={0: "GPU-a", 1: "GPU-b"})
    lease = world.lease(4_000, count=2)
    assert (set(lease.tokens), lease.uuids, lease.state) == ({0, 1}, {0: "GPU-a", 1: "GPU-b"}, "active")
    assert lease.expires == world.now + lease.ask.ttl_s
    assert [world.state.gpus[gpu].claims for gpu in (0, 1)] == [{lease.id: 4_000}] * 2


def test_without_a_gpu_there_is_nothing_to_lease_and_it_is_said() -> None:
    state = initial(Machine({}, {}, 0, 1, 8))
    step(state, ev.Adopt({}), 0.0)
    denied = one(step(state, ev.Acquire("call", LeaseAsk("r", "me", 1_000), LATER), 0.0)[1], ev.LeaseDenied)
    assert (denied.code, denied.reason) == (
        "impossible",
        "the profile in force has no GPU, so there is nothing to lease",
    )


def test_tokens_only_grow_whoever_gets_them(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 3_000))
    first = world.lease(1_000)
    world.release(first)
    start = one(world.say(ev.Arrive("r", ("a",), LATER)), ev.Start)
    world.say(ev.Ready("a"))
    second = world.lease(1_000)
    assert first.tokens[0] < start.tokens[0] < second.tokens[0]


def test_tokens_begin_above_those_of_an_earlier_life(play: Make) -> None:
    world = play(adopt=False)
    world.say(ev.Adopt({}, tokens={0: 41}))
    assert world.lease(1_000).token == 42


def test_the_same_request_again_is_the_same_lease(play: Make) -> None:
    world = play()
    lease = world.lease(1_000, request="mine")
    again = one(world.say(ev.Acquire("other call", lease.ask, LATER)), ev.LeaseGranted)
    assert (again.call, again.lease) == ("other call", lease)
    changed = world.say(ev.Acquire("third", replace(lease.ask, mib=2_000), LATER))
    assert codes(changed) == ["invalid"]


def test_the_same_request_in_the_queue_is_answered_to_all_who_asked(play: Make) -> None:
    world = play()
    first = world.lease(8_000)
    ask = LeaseAsk("twice", "bob", 8_000)
    assert kinds(world.say(ev.Acquire("x", ask, LATER), ev.Acquire("y", ask, LATER))) == ["LeaseQueued"] * 2
    granted = [effect for effect in world.release(first) if isinstance(effect, ev.LeaseGranted)]
    assert {effect.call for effect in granted} == {"x", "y"}
    assert len({effect.lease.id for effect in granted}) == 1


@pytest.mark.parametrize(
    "facts",
    [
        {"mib": 0},
        {"mib": -5},
        {"mib": float("nan")},
        {"mib": True},
        {"count": 0},
        {"gpus": (7,)},
        {"gpus": (0, 0)},
        {"ttl_s": float("nan")},
        {"ttl_s": float("inf")},
        {"ttl_s": 0.0},
        {"ttl_s": 1e9},
        {"priority": 10**9},
        {"priority": 1.5},
        {"owner": ""},
        {"request": ""},
    ],
)
def test_numbers_that_make_no_sense_are_denied_and_change_nothing(play: Make, facts: dict[str, Any]) -> None:
    world = play()
    said = world.ask(**({"mib": 100} | facts))
    assert codes(said) == ["invalid"]
    assert not world.state.queued
    assert not world.state.gpus[0].claims


@pytest.mark.parametrize("facts", [{"mib": 10_001}, {"mib": 10**18}, {"mib": 1, "count": 2}])
def test_what_could_never_be_is_denied_at_once(play: Make, facts: dict[str, Any]) -> None:
    assert codes(play().ask(**facts)) == ["impossible"]


def test_kept_models_leave_no_room_for_a_shared_lease_but_go_for_an_exclusive_one(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 6_000, kept=True, resident=True))
    world.say(ev.Ready("a"))
    assert codes(world.ask(6_000)) == ["impossible"]
    assert world.ask(6_000, exclusive=True)[0] == ev.Stop("a")


def test_a_lease_waits_in_the_queue_and_is_denied_with_the_numbers_when_its_time_is_over(play: Make) -> None:
    world = play()
    world.lease(8_000)
    queued = one(world.ask(4_000, wait=5.0), ev.LeaseQueued)
    assert queued.position == 1
    denied = one(world.wait(), ev.LeaseDenied)
    assert world.now == 5.0
    assert denied.code == "busy"
    assert "2000 of 10000 MiB are free" in denied.reason
    assert not world.state.queued


def test_the_estimate_comes_from_how_long_leases_were_held(play: Make) -> None:
    world = play()
    first = world.lease(8_000)
    assert one(world.ask(8_000, wait=LATER), ev.LeaseQueued).estimate_s is None
    world.now = 30.0
    world.release(first)
    assert one(world.ask(8_000), ev.LeaseQueued).estimate_s == 30.0


def test_several_gpus_are_given_whole_or_not_at_all(play: Make) -> None:
    world = play(gpus={0: 10_000, 1: 10_000})
    busy = world.lease(8_000, gpus=(1,))
    assert kinds(world.ask(4_000, count=2)) == ["LeaseQueued"]
    assert world.state.gpus[0].claims == {}
    lease = one(world.release(busy), ev.LeaseGranted).lease
    assert set(lease.tokens) == {0, 1}


def test_the_emptier_gpu_is_chosen(play: Make) -> None:
    world = play(gpus={0: 10_000, 1: 10_000})
    assert set(world.lease(4_000).tokens) == {0}
    assert set(world.lease(4_000).tokens) == {1}


def test_an_exclusive_lease_is_alone(play: Make, gpu: Make) -> None:
    world = play(gpu("a"), gpu("b", 1_000))
    world.load("a")
    world.load("b")
    assert world.ask(1_000, exclusive=True)[0] == ev.Stop("a")
    assert world.say(ev.Stopped("a"))[0] == ev.Stop("b")
    lease = one(world.say(ev.Stopped("b")), ev.LeaseGranted).lease
    assert lease.restore == ("a", "b")
    assert world.say(ev.Arrive("r", ("b",), LATER)) == []
    assert kinds(world.ask(1_000)) == ["LeaseQueued"]


def test_an_exclusive_lease_waits_for_busy_models_and_lets_no_other_in(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 3_000), gpu("b", 3_000))
    world.load("a")
    world.say(ev.Arrive("long", ("a",), LATER))
    assert kinds(world.ask(1_000, exclusive=True)) == ["LeaseQueued"]
    assert world.say(ev.Arrive("r", ("b",), LATER)) == []
    assert world.say(ev.Finish("long")) == [ev.Stop("a")]
    assert kinds(world.say(ev.Stopped("a"))) == ["LeaseGranted"]


def test_what_went_for_an_exclusive_lease_comes_back(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    world.load("a")
    world.ask(1_000, exclusive=True)
    lease = one(world.say(ev.Stopped("a")), ev.LeaseGranted).lease
    assert kinds(world.release(lease)) == ["LeaseAnswered", "LeaseEnded", "Start"]


def test_nothing_comes_back_where_somebody_waits(play: Make, gpu: Make) -> None:
    world = play(gpu("a"), gpu("b"))
    world.load("a")
    world.ask(1_000, exclusive=True)
    lease = one(world.say(ev.Stopped("a")), ev.LeaseGranted).lease
    world.say(ev.Arrive("r", ("b",), LATER))
    assert one(world.release(lease), ev.Start).model == "b"
    assert world.say(ev.Ready("b"), ev.Finish("r")) == [ev.Grant("r", "b", 1)]


def test_what_went_for_a_call_that_left_comes_back_too(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 3_000), gpu("b", 3_000))
    world.load("a")
    world.load("b")
    world.say(ev.Arrive("long", ("b",), LATER))
    world.ask(1_000, exclusive=True, wait=5.0)
    world.say(ev.Finish("long"))
    assert world.is_("a") == "stopping"
    world.wait()
    assert one(world.say(ev.Stopped("a")), ev.Start).model == "a"


def test_residents_come_back_after_an_exclusive_lease(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 4_000, kept=True, resident=True))
    world.say(ev.Ready("a"))
    world.ask(1_000, exclusive=True)
    lease = one(world.say(ev.Stopped("a")), ev.LeaseGranted).lease
    assert one(world.release(lease), ev.Start).model == "a"


def test_a_holder_that_does_not_renew_loses_it_and_its_processes_are_ended_first(play: Make) -> None:
    world = play()
    lease = world.lease(4_000, ttl_s=10.0)
    assert kinds(world.say(ev.Renew("c", lease.id, lease.token), now=9.0)) == ["LeaseAnswered"]
    assert world.say(ev.Tick(), now=18.9) == []
    assert world.wait() == [ev.Reclaim(lease.id)]
    assert codes(world.say(ev.Renew("c", lease.id, lease.token))) == ["stale_token"]
    assert world.state.gpus[0].claims == {lease.id: 4_000}
    assert world.say(ev.Reclaimed(lease.id)) == [ev.LeaseEnded(lease.id, "expired")]
    assert world.state.gpus[0].claims == {}


def test_a_holder_that_is_gone_loses_it_at_once(play: Make) -> None:
    world = play()
    lease = world.lease()
    assert world.say(ev.HolderGone(lease.id)) == [ev.Reclaim(lease.id)]
    assert world.say(ev.HolderGone(lease.id)) == []
    assert world.say(ev.Reclaimed(lease.id)) == [ev.LeaseEnded(lease.id, "holder_gone")]


def test_processes_that_do_not_end_quarantine_the_lease_and_are_ended_again(play: Make) -> None:
    world = play()
    lease = world.lease()
    world.say(ev.HolderGone(lease.id), ev.ReclaimFailed(lease.id, "in D state", (77,)))
    held = world.state.leases[lease.id]
    assert (held.state, held.pids) == ("quarantined", (77,))
    assert world.wait() == [ev.Reclaim(lease.id)]
    assert world.say(ev.Reclaimed(lease.id)) == [ev.LeaseEnded(lease.id, "holder_gone")]


def test_a_release_again_is_no_error_and_by_another_one_is(play: Make) -> None:
    world = play()
    lease = world.lease()
    assert codes(world.say(ev.Release("c", lease.id, lease.token + 5))) == ["not_owner"]
    assert codes(world.say(ev.Release("c", lease.id, lease.token - 1))) == ["stale_token"]
    assert codes(world.say(ev.Release("c", "lease-0-99", 3))) == ["unknown_lease"]
    assert kinds(world.release(lease)) == ["LeaseAnswered", "LeaseEnded"]
    again = one(world.release(lease), ev.LeaseAnswered)
    assert again.lease.state == "free"
    assert codes(world.say(ev.Renew("c", lease.id, lease.token))) == ["stale_token"]


def test_a_person_can_end_a_lease(play: Make) -> None:
    world = play()
    lease = world.lease()
    said = world.say(ev.ForceRelease("c", lease.id, "root"))
    assert kinds(said) == ["Reclaim", "LeaseAnswered"]
    assert world.say(ev.Reclaimed(lease.id)) == [ev.LeaseEnded(lease.id, "forced")]
    assert kinds(world.say(ev.ForceRelease("c", lease.id, "root"))) == ["LeaseAnswered"]
    assert codes(world.say(ev.ForceRelease("c", "lease-9-9", "root"))) == ["unknown_lease"]


def test_handed_over_to_an_owner_the_old_token_is_worth_nothing(play: Make) -> None:
    world = play()
    lease = world.lease()
    new = one(world.say(ev.Handover("c", lease.id, lease.token, owner="bob")), ev.LeaseAnswered).lease
    assert (new.ask.owner, new.id, new.state) == ("bob", lease.id, "active")
    assert new.token > lease.token
    assert codes(world.say(ev.Renew("c", lease.id, lease.token))) == ["stale_token"]
    assert kinds(world.say(ev.Renew("c", lease.id, new.token))) == ["LeaseAnswered"]


def test_handed_over_to_a_model_it_is_loaded_once_before_everything_else(play: Make, gpu: Make) -> None:
    world = play(gpu("judge", 9_000), gpu("before", 6_000), gpu("other", 6_000))
    world.load("before")
    world.ask(1_000, exclusive=True)
    lease = one(world.say(ev.Stopped("before")), ev.LeaseGranted).lease
    world.say(ev.Arrive("r", ("other",), LATER))
    said = world.say(ev.Handover("c", lease.id, lease.token, model="judge"))
    assert kinds(said) == ["LeaseAnswered", "LeaseEnded", "Start"]
    assert one(said, ev.Start).model == "judge"
    assert one(said, ev.LeaseEnded).cause == "handed_over"
    assert [move.subject for move in world.moves if move.after == "starting"] == ["before", "judge"]


@pytest.mark.parametrize("to", [{}, {"owner": "x", "model": "a"}, {"model": "nobody"}, {"model": "elsewhere"}])
def test_a_handover_to_nobody_is_denied(play: Make, gpu: Make, to: dict[str, str]) -> None:
    world = play(gpu("a"), gpu("elsewhere", 100, 1), gpus={0: 10_000, 1: 10_000})
    lease = world.lease(gpus=(0,))
    assert codes(world.say(ev.Handover("c", lease.id, lease.token, **to))) == ["invalid"]
    assert world.state.leases[lease.id] == lease


def test_a_request_with_the_token_uses_the_memory_of_the_lease(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 6_000))
    lease = world.lease(8_000, exclusive=True)
    start = one(world.say(ev.Arrive("in", ("a",), LATER, lease=lease.id, token=lease.token)), ev.Start)
    assert start.model == "a"
    assert world.say(ev.Ready("a")) == [ev.Grant("in", "a", 1)]
    assert world.state.gpus[0].claims == {lease.id: 8_000}
    assert world.say(ev.Arrive("out", ("a",), LATER)) == []
    said = world.release(lease)
    assert ev.Grant("out", "a", 1) in said
    assert world.state.gpus[0].claims == {"a": 6_000}


def test_models_in_a_lease_may_hold_more_than_the_lease_where_there_is_room(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 6_000), gpu("b", 6_000))
    lease = world.lease(4_000)
    world.say(ev.Arrive("r", ("a",), LATER, lease=lease.id, token=lease.token))
    assert world.state.gpus[0].claims == {lease.id: 6_000}
    world.say(ev.Ready("a"), ev.Finish("r"))
    assert world.say(ev.Arrive("s", ("b",), LATER, lease=lease.id, token=lease.token)) == [ev.Stop("a")]
    assert world.say(ev.Stopped("a"))[0].model == "b"


@pytest.mark.parametrize("token", [None, 0, 99])
def test_a_request_with_a_wrong_token_is_refused(play: Make, gpu: Make, token: int | None) -> None:
    world = play(gpu("a"))
    lease = world.lease()
    assert codes(world.say(ev.Arrive("r", ("a",), LATER, lease=lease.id, token=token))) == ["stale_token"]


def test_requests_that_wait_under_a_lease_end_with_it(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    lease = world.lease(exclusive=True)
    world.say(ev.Arrive("r", ("a",), LATER, lease=lease.id, token=lease.token))
    assert codes(world.say(ev.HolderGone(lease.id))) == ["stale_token"]


def test_a_request_that_a_lease_keeps_waiting_is_told_whose(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    world.lease(exclusive=True, owner="training", reason="lora")
    world.say(ev.Arrive("r", ("a",), 5.0))
    refused = one(world.wait(), ev.Refuse)
    assert refused.code == "lease_blocks"
    assert "an exclusive lease of training (4000 MiB for lora)" in refused.reason


def test_a_shared_lease_that_takes_the_room_is_named_too(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 8_000))
    world.lease(4_000, owner="bob")
    world.say(ev.Arrive("r", ("a",), 5.0))
    refused = one(world.wait(), ev.Refuse)
    assert (refused.code, "a lease of bob" in refused.reason) == ("lease_blocks", True)


def test_a_lease_that_could_not_be_written_down_was_never_given(play: Make, gpu: Make) -> None:
    world = play(gpu("a"))
    world.load("a")
    world.ask(1_000, exclusive=True)
    lease = one(world.say(ev.Stopped("a")), ev.LeaseGranted).lease
    said = world.say(ev.Unsaved(lease.id))
    assert kinds(said) == ["LeaseEnded", "Start"]
    assert one(said, ev.LeaseEnded).cause == "unsaved"


def test_a_client_that_left_gets_no_lease(play: Make) -> None:
    world = play()
    first = world.lease(8_000)
    world.ask(8_000)
    world.say(ev.Withdraw("call-2"))
    assert kinds(world.release(first)) == ["LeaseAnswered", "LeaseEnded"]
    assert world.say(ev.Withdraw("call-2")) == []


def test_the_queue_of_calls_is_bounded(play: Make) -> None:
    world = play(queue=2)
    world.lease(8_000)
    assert [codes(world.ask(8_000)) for _ in range(4)] == [[], [], ["busy"], ["busy"]]


def test_ten_thousand_calls_each_get_an_answer(play: Make) -> None:
    world = play(queue=50)
    said = [world.ask(3_000, wait=10.0) for _ in range(10_000)]
    answered = sum("LeaseGranted" in kinds(each) or bool(codes(each)) for each in said)
    assert answered == 10_000 - 50
    assert codes(world.say(ev.Tick(), now=10.0)) == ["busy"] * 50
    assert len(world.state.leases) == 3
    assert not world.state.queued


def test_a_higher_priority_is_served_first(play: Make) -> None:
    world = play()
    first = world.lease(8_000)
    world.ask(8_000, request="low")
    assert one(world.ask(8_000, request="high", priority=5), ev.LeaseQueued).position == 1
    assert one(world.release(first), ev.LeaseGranted).lease.ask.request == "high"


def test_nothing_is_given_before_the_world_was_looked_at(play: Make) -> None:
    world = play(adopt=False)
    assert kinds(world.ask(1_000, wait=5.0)) == ["LeaseQueued"]
    assert codes(world.wait()) == ["not_reconciled"]
    world.ask(1_000)
    assert kinds(world.say(ev.Adopt({}))) == ["LeaseGranted"]


def test_leases_of_an_earlier_life_are_held_on_with_a_whole_ttl(play: Make) -> None:
    lease = play(uuids={0: "GPU-a"}).lease(8_000, ttl_s=10.0)
    world = play(uuids={0: "GPU-b", 1: "GPU-a"}, gpus={0: 10_000, 1: 10_000}, adopt=False)
    world.say(ev.Adopt({}, leases=(lease,), tokens={0: 7, 1: 7}), now=500.0)
    held = world.state.leases[lease.id]
    assert (held.tokens, held.uuids, held.expires) == ({1: lease.token}, {1: "GPU-a"}, 510.0)
    assert world.state.gpus[1].claims == {lease.id: 8_000}
    assert kinds(world.say(ev.Renew("c", lease.id, lease.token))) == ["LeaseAnswered"]


def test_a_lease_whose_gpu_is_not_there_any_more_is_over(play: Make) -> None:
    lease = play(uuids={0: "GPU-a"}).lease()
    world = play(uuids={0: "GPU-b"}, adopt=False)
    assert world.say(ev.Adopt({}, leases=(lease,))) == [ev.LeaseEnded(lease.id, "gpu_lost")]


def test_a_lease_that_was_ending_is_ended_in_the_next_life(play: Make) -> None:
    lease = replace(play().lease(), state="reclaiming")
    world = play(adopt=False)
    assert world.say(ev.Adopt({}, leases=(lease,))) == [ev.Reclaim(lease.id)]
    assert world.say(ev.Reclaimed(lease.id)) == [ev.LeaseEnded(lease.id, "holder_gone")]


def test_a_model_found_on_somebodys_own_gpu_is_his(play: Make, gpu: Make) -> None:
    lease = play().lease(8_000, exclusive=True)
    world = play(gpu("a", 6_000), adopt=False)
    world.say(ev.Adopt({"a": "ready"}, leases=(lease,)))
    assert world.state.slots["a"].lease == lease.id
    assert world.state.gpus[0].claims == {lease.id: 8_000}


def test_draining_denies_who_waits_and_keeps_what_is_held(play: Make) -> None:
    world = play()
    lease = world.lease(8_000)
    world.ask(8_000)
    assert codes(world.say(ev.Drain())) == ["shutting_down"]
    assert codes(world.ask(1)) == ["shutting_down"]
    assert kinds(world.say(ev.Renew("c", lease.id, lease.token))) == ["LeaseAnswered"]
    assert world.state.leases[lease.id].state == "active"


def test_leases_that_are_only_observed_block_nobody_and_say_so(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 8_000), observe=True)
    world.lease(6_000, exclusive=True)
    said = world.ask(6_000, exclusive=True)
    assert kinds(said) == ["WouldBlock", "LeaseGranted"]
    assert kinds(world.say(ev.Arrive("r", ("a",), LATER))) == ["WouldBlock", "Start"]
    assert kinds(world.say(ev.Ready("a"))) == ["WouldBlock", "Grant"]
    assert kinds(world.say(ev.Arrive("s", ("a",), LATER))) == ["WouldBlock", "Grant"]
    assert world.state.gpus[0].claims == {"a": 8_000}


def test_a_model_that_has_no_room_beside_a_lease_is_found_inside_it(play: Make, gpu: Make) -> None:
    lease = play().lease(8_000)
    world = play(gpu("a", 6_000), gpu("b", 1_000), adopt=False)
    world.say(ev.Adopt({"a": "ready", "b": "ready"}, leases=(lease,)))
    assert (world.state.slots["a"].lease, world.state.slots["b"].lease) == (lease.id, None)
    assert world.state.gpus[0].claims == {lease.id: 8_000, "b": 1_000}


def test_a_model_that_sleeps_is_found_beside_a_lease_where_what_it_keeps_fits(play: Make, gpu: Make) -> None:
    """Inside the lease its bytes would pass for the holder's, and the holder's for a stranger's."""
    sleeper = gpu("a", 6_000, sleep_level=2, asleep_mib={0: 600})
    first = play(sleeper)
    lease = first.lease(5_000)
    world = play(sleeper, adopt=False)
    world.say(ev.Adopt({"a": "asleep"}, (lease,), {0: lease.token}))
    assert world.state.slots["a"].lease is None
    assert world.state.gpus[0].claims == {lease.id: 5_000, "a": 600}


def test_a_model_in_a_lease_comes_up_when_the_holder_is_seen_to_use_less(play: Make, gpu: Make) -> None:
    world = play(gpu("a", 6_000))
    world.measure(0)
    lease = world.lease(7_000)
    world.measure(6_500)
    assert world.say(ev.Arrive("r", ("a",), LATER, lease=lease.id, token=lease.token)) == []
    assert [effect.model for effect in world.measure(500)] == ["a"]
