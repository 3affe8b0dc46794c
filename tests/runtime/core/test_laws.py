"""Random stories with leases, sleep and readings against the laws of memory: nothing overfull, nobody beside an exclusive
lease, tokens that only grow, one answer to each call, loads one after the other, books that agree, everybody served."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from imageworks.runtime import events as ev
from imageworks.runtime.leases import LeaseAsk
from imageworks.runtime.residency import Machine, Spec
from imageworks.runtime.scheduler import State, initial, key, next_deadline, position, step, view

PICK = st.integers(0, 1_000)
WELL = st.sampled_from([True, True, True, False])
FACTS = st.tuples(
    st.sampled_from([(0,), (1,), (0, 1), ()]), st.sampled_from([1_000, 3_000, 6_000]), st.booleans(), st.booleans()
)
BUDGET, TOTAL = 10_000, 12_000
LATER = 1e6


class World(RuleBasedStateMachine):
    """Cards whose memory is held until what holds it is gone, engines and clients that obey or not, at any pace."""

    @initialize(
        facts=st.lists(FACTS, min_size=2, max_size=4), measured=st.booleans(), overtakes=st.sampled_from([1, 16])
    )
    def build(self, facts: list[tuple[tuple[int, ...], int, bool, bool]], *, measured: bool, overtakes: int) -> None:
        specs = {}
        for number, (gpus, mib, sleeps, apart) in enumerate(facts):
            asleep: dict[str, Any] = {"sleep_level": 1, "asleep_mib": dict.fromkeys(gpus, 300)} if sleeps else {}
            name = f"m{number}"
            never = frozenset({"m0"}) if apart and number else frozenset()
            specs[name] = Spec(name, dict.fromkeys(gpus, mib), 0 if gpus else mib, 20.0, 2, never_with=never, **asleep)
        self.machine = Machine(specs, {0: BUDGET, 1: BUDGET}, BUDGET, 3, 8, max_overtakes=overtakes, measured=measured)
        self.state: State = initial(self.machine)
        self.now, self.number, self.measured = 0.0, 0, measured
        self.doing: dict[str, str] = {}
        self.reclaiming: list[str] = []
        self.waiting: set[str] = set()
        self.granted: dict[str, str] = {}
        self.calls: set[str] = set()
        self.leases: dict[str, Any] = {}
        self.used: dict[str, dict[int, int]] = {}
        self.token: dict[int, int] = defaultdict(int)
        self.tell(ev.Adopt({}))
        self.look()

    def tell(self, event: ev.Event) -> None:
        self.state, effects = step(self.state, event, self.now)
        for effect in effects:
            check = getattr(self, f"on_{type(effect).__name__.lower()}", None)
            if check is not None:
                check(effect)

    def fence(self, tokens: Any) -> None:
        for gpu, token in tokens.items():
            assert token > self.token[gpu], "a token that is not new"
            self.token[gpu] = token

    def on_start(self, effect: ev.Start) -> None:
        assert effect.model not in self.doing, "started twice"
        self.fence(effect.tokens)
        self.doing[effect.model] = "start"
        self.load(effect.model)

    def on_wake(self, effect: ev.Wake) -> None:
        self.fence(effect.tokens)
        self.doing[effect.model] = "wake"
        self.load(effect.model)

    def load(self, model: str) -> None:
        """It uses memory of its own, or of the lease that it lives in, whose holder keeps off it."""
        self.used[model] = dict(self.machine.specs[model].gpu_mib)
        lease = self.state.slots[model].lease
        if lease is not None:
            self.used.pop(lease, None)

    def on_stop(self, effect: ev.Stop) -> None:
        assert self.doing.get(effect.model) != "stop", "stopped twice"
        self.doing[effect.model] = "stop"

    def on_sleep(self, effect: ev.Sleep) -> None:
        assert effect.model not in self.granted.values(), "put to sleep under a request"
        self.doing[effect.model] = "sleep"

    def on_grant(self, effect: ev.Grant) -> None:
        assert self.state.slots[effect.model].life == effect.life
        self.waiting.remove(effect.request)
        self.granted[effect.request] = effect.model

    def on_refuse(self, effect: ev.Refuse) -> None:
        self.waiting.remove(effect.request)

    def on_leasegranted(self, effect: ev.LeaseGranted) -> None:
        self.calls.remove(effect.call)
        if effect.lease.id not in self.leases:
            self.fence(effect.lease.tokens)
            self.used[effect.lease.id] = dict.fromkeys(effect.lease.tokens, effect.lease.ask.mib)
        self.leases[effect.lease.id] = effect.lease

    def on_leaseanswered(self, effect: ev.LeaseAnswered) -> None:
        self.calls.remove(effect.call)
        if effect.lease.id in self.leases:
            if effect.lease.token > self.leases[effect.lease.id].token:
                self.fence(effect.lease.tokens)
            self.leases[effect.lease.id] = effect.lease

    def on_leasedenied(self, effect: ev.LeaseDenied) -> None:
        self.calls.remove(effect.call)

    def on_leaseended(self, effect: ev.LeaseEnded) -> None:
        del self.leases[effect.lease]

    def on_reclaim(self, effect: ev.Reclaim) -> None:
        self.reclaiming.append(effect.lease)

    def call(self, make: Callable[[str], ev.Event]) -> None:
        self.number += 1
        self.calls.add(f"c{self.number}")
        self.tell(make(f"c{self.number}"))

    def look(self) -> None:
        if self.measured:
            used = {gpu: sum(each.get(gpu, 0) for each in self.used.values()) for gpu in (0, 1)}
            self.tell(ev.Measured({gpu: ev.Reading(TOTAL, min(mib, TOTAL)) for gpu, mib in used.items()}))

    # what can happen

    @rule(pick=PICK, inside=st.booleans(), priority=st.integers(0, 2), patience=st.sampled_from([1.0, LATER]))
    def arrive(self, pick: int, priority: int, patience: float, *, inside: bool) -> None:
        self.number += 1
        names = sorted(self.machine.specs)
        models = (names[pick % len(names)], names[pick // 7 % len(names)])
        lease = self.leases[sorted(self.leases)[pick % len(self.leases)]] if inside and self.leases else None
        self.waiting.add(f"r{self.number}")
        shown = (lease.id, lease.token) if lease else (None, None)
        self.tell(ev.Arrive(f"r{self.number}", models[: 1 + pick % 2], self.now + patience, priority, *shown))

    @rule(pick=PICK, well=WELL)
    def finish(self, pick: int, *, well: bool) -> None:
        if self.granted:
            request = sorted(self.granted)[pick % len(self.granted)]
            del self.granted[request]
            self.tell(ev.Finish(request) if well else ev.Cancel(request))

    @rule(pick=PICK, well=WELL)
    def done(self, pick: int, *, well: bool) -> None:
        if self.doing:
            self.answer(sorted(self.doing)[pick % len(self.doing)], well=well)

    def answer(self, model: str, *, well: bool) -> None:
        doing = self.doing.pop(model)
        if doing == "stop":
            if well:
                del self.used[model]
            self.tell(ev.Stopped(model) if well else ev.StopFailed(model, "stuck", (1,)))
        elif doing == "sleep":
            if well:
                self.used[model] = dict(self.machine.specs[model].asleep_mib)
            self.tell(ev.Slept(model) if well else ev.SleepFailed(model, "awake"))
        elif doing == "wake":
            self.tell(ev.Ready(model) if well else ev.WakeFailed(model, "gibberish"))
        else:
            self.tell(ev.Ready(model) if well else ev.StartFailed(model, "broken"))

    @rule(pick=PICK)
    def die(self, pick: int) -> None:
        up = sorted(name for name, slot in self.state.slots.items() if slot.residency in ("ready", "asleep"))
        if up:
            self.tell(ev.Died(up[pick % len(up)], "killed"))

    @rule(
        mib=st.sampled_from([500, 4_000, 9_000]), count=st.integers(1, 2), wait=st.sampled_from([0.0, LATER]),
        exclusive=st.booleans(), priority=st.integers(0, 2),
    )  # fmt: skip
    def acquire(self, mib: int, count: int, wait: float, priority: int, *, exclusive: bool) -> None:
        ask = LeaseAsk(f"q{self.number}", "ann", mib, count=count, exclusive=exclusive, priority=priority)
        self.call(lambda call: ev.Acquire(call, ask, self.now + wait))

    @rule(pick=PICK, how=st.sampled_from(["renew", "release", "force", "owner", "model", "stale", "gone"]))
    def touch(self, pick: int, how: str) -> None:
        if not self.leases:
            return
        lease = self.leases[sorted(self.leases)[pick % len(self.leases)]]
        ways: dict[str, Callable[[str], ev.Event]] = {
            "renew": lambda call: ev.Renew(call, lease.id, lease.token),
            "release": lambda call: ev.Release(call, lease.id, lease.token),
            "force": lambda call: ev.ForceRelease(call, lease.id, "root"),
            "owner": lambda call: ev.Handover(call, lease.id, lease.token, owner="bob"),
            "model": lambda call: ev.Handover(call, lease.id, lease.token, model=f"m{pick % 4}"),
            "stale": lambda call: ev.Release(call, lease.id, lease.token - 1),
        }
        if how == "gone":
            self.tell(ev.HolderGone(lease.id))
            return
        if how in ("release", "model"):
            self.used.pop(lease.id, None)
        before = dict(self.state.leases)
        self.call(ways[how])
        if how == "stale":
            assert self.state.leases == before, "a stale token changed something"

    @rule(pick=PICK, well=WELL)
    def reclaimed(self, pick: int, *, well: bool) -> None:
        if self.reclaiming:
            self.end_holder(self.reclaiming.pop(pick % len(self.reclaiming)), well=well)

    def end_holder(self, lease: str, *, well: bool) -> None:
        if well:
            self.used.pop(lease, None)
        self.tell(ev.Reclaimed(lease) if well else ev.ReclaimFailed(lease, "stuck", (2,)))

    @rule(silent=st.booleans())
    def measure(self, *, silent: bool) -> None:
        if self.measured and silent:
            self.tell(ev.Measured({0: None, 1: None}))
        self.look()

    @rule(seconds=st.sampled_from([0.5, 5.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell(ev.Tick())

    # what always holds

    @invariant()
    def memory_is_not_overfull(self) -> None:
        if hasattr(self, "state"):
            for gpu, book in self.state.gpus.items():
                assert sum(book.claims.values()) == book.claimed_mib <= BUDGET
                held = {name for name, each in self.used.items() if each.get(gpu)}
                if book.exclusive:
                    assert set(book.claims) == {book.exclusive}
                if self.measured:
                    assert sum(self.used[name][gpu] for name in held) <= TOTAL, "more in use than there is"

    @invariant()
    def loads_follow_each_other(self) -> None:
        if hasattr(self, "state"):
            for gpu in (0, 1):
                loading = [
                    name
                    for name, doing in self.doing.items()
                    if doing in ("start", "wake") and gpu in self.machine.specs[name].gpu_mib
                ]
                assert len(loading) <= 1

    @invariant()
    def books_agree(self) -> None:
        if hasattr(self, "state"):
            state = self.state
            assert state.granted == self.granted
            assert state.waiting.keys() == self.waiting
            assert state.by_call.keys() == self.calls
            assert state.leases.keys() == self.leases.keys()
            assert state.counted == sum(slot.held_count for slot in state.slots.values()) <= self.machine.count
            assert state.host_mib == sum(slot.held_host for slot in state.slots.values()) <= BUDGET
            for each in view(state).gpus:
                assert sum(holder.mib for holder in each.holders if holder.within is None) == each.held_mib
            for waiter in (*state.waiting, *state.by_call):
                assert position(state, waiter)[0] >= 1

    @invariant()
    def a_copy_is_the_same(self) -> None:
        if hasattr(self, "state"):
            assert key(self.state.copy(), self.now) == key(self.state, self.now)

    def teardown(self) -> None:
        """When everything that was asked for happens, everybody gets an answer before the far deadline."""
        if not hasattr(self, "state"):
            return
        for _ in range(300):
            if not self.waiting and not self.calls:
                return
            self.one_fair_round()
        raise AssertionError(f"wait for ever: {self.waiting} {self.calls}")

    def one_fair_round(self) -> None:
        self.look()
        for request in sorted(self.granted):
            del self.granted[request]
            self.tell(ev.Finish(request))
        for model in sorted(self.doing):
            self.answer(model, well=True)
        while self.reclaiming:
            self.end_holder(self.reclaiming.pop(), well=True)
        for name in sorted(self.leases):
            if self.state.leases[name].state == "active":
                self.used.pop(name, None)
                lease = self.leases[name]
                self.call(lambda call, lease=lease: ev.Release(call, lease.id, lease.token))  # type: ignore[misc]  # bound now
        self.look()
        due = next_deadline(self.state, self.now)
        self.now = due if due is not None and due < self.now + 1e5 else self.now + 1.0
        self.tell(ev.Tick())


World.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestWorld = World.TestCase
