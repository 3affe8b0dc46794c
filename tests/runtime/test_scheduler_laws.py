"""Random stories against the scheduler's laws: budgets, one answer, single flight, no eviction under a request, liveness."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from imageworks.runtime.events import (
    Adopt,
    Arrive,
    Cancel,
    Died,
    Event,
    Finish,
    Grant,
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
from imageworks.runtime.residency import Machine, Spec
from imageworks.runtime.scheduler import State, initial, next_deadline, step

CHOICE = st.integers(0, 1_000)
SPECS = st.lists(
    st.tuples(
        st.sampled_from([(), (0,), (1,), (0, 1)]), st.integers(1, 10), st.integers(1, 3), st.sampled_from([5.0, 50.0])
    ),
    min_size=2,
    max_size=5,
)


class World(RuleBasedStateMachine):
    """A machine that obeys: what is started becomes ready or fails, what is stopped goes, in any order and at any pace."""

    @initialize(
        facts=SPECS, count=st.integers(1, 4), kept=st.booleans(), adopt=st.sampled_from(["starting", "ready", None])
    )
    def build(
        self, facts: list[tuple[tuple[int, ...], int, int, float]], count: int, *, kept: bool, adopt: str | None
    ) -> None:
        specs = {
            f"m{index}": Spec(f"m{index}", dict.fromkeys(gpus, mib), 0 if gpus else mib, grace, concurrency)
            for index, (gpus, mib, concurrency, grace) in enumerate(facts)
        }
        if kept:
            first = specs["m0"]
            specs["m0"] = Spec("m0", {0: 3}, 0, first.grace_s, first.concurrency, kept=True, resident=True)
        self.machine = Machine(specs, {0: 10, 1: 10}, 10, count, queue=6)
        self.state: State = initial(self.machine)
        self.now, self.number = 0.0, 0
        self.starting: list[str] = []
        self.stopping: list[str] = []
        self.waiting: set[str] = set()
        self.granted: dict[str, str] = {}
        observed = {} if adopt is None else {"m0": adopt}
        self.starting += [name for name, seen in observed.items() if seen == "starting"]
        self.tell(Adopt(observed))  # type: ignore[arg-type]  # the literals come from sampled_from

    def tell(self, event: Event) -> None:
        self.again = {name for name, slot in self.state.slots.items() if slot.stop_again_at is not None}
        self.state, effects = step(self.state, event, self.now)
        for effect in effects:
            if isinstance(effect, Start):
                assert effect.model not in self.starting + self.stopping, "started twice"
                self.starting.append(effect.model)
            elif isinstance(effect, Stop):
                self.check_stop(effect.model, event)
            elif isinstance(effect, Grant):
                assert effect.model not in self.starting + self.stopping, "granted while not ready"
                self.waiting.remove(effect.request)
                self.granted[effect.request] = effect.model
            elif isinstance(effect, Refuse):
                self.waiting.remove(effect.request)

    def check_stop(self, model: str, event: Event) -> None:
        died = isinstance(event, (Died, StartFailed)) and event.model == model
        again = model in self.again
        assert died or again or model not in self.granted.values(), "evicted under a request"
        assert model not in self.starting or died
        assert model not in self.stopping, "stopped twice"
        self.starting = [name for name in self.starting if name != model]
        self.stopping.append(model)

    @rule(first=CHOICE, second=CHOICE, patience=st.sampled_from([1.0, 30.0, 1e6]))
    def arrive(self, first: int, second: int, patience: float) -> None:
        names = sorted(self.machine.specs)
        models = tuple(dict.fromkeys((names[first % len(names)], names[second % len(names)])))
        self.number += 1
        self.waiting.add(f"r{self.number}")
        self.tell(Arrive(f"r{self.number}", models, self.now + patience))

    @rule(pick=CHOICE, ok=st.booleans())
    def finish(self, pick: int, *, ok: bool) -> None:
        if self.granted:
            request = sorted(self.granted)[pick % len(self.granted)]
            del self.granted[request]
            self.tell(Finish(request, ok))

    @rule(pick=CHOICE)
    def cancel(self, pick: int) -> None:
        everyone = sorted(self.waiting | self.granted.keys())
        if everyone:
            request = everyone[pick % len(everyone)]
            self.waiting.discard(request)
            self.granted.pop(request, None)
            self.tell(Cancel(request))

    @rule(pick=CHOICE, works=st.sampled_from([True, True, True, False]))
    def start_ends(self, pick: int, *, works: bool) -> None:
        if self.starting:
            model = self.starting.pop(pick % len(self.starting))
            self.tell(Ready(model) if works else StartFailed(model, "broken"))

    @rule(pick=CHOICE, works=st.sampled_from([True, True, True, False]))
    def stop_ends(self, pick: int, *, works: bool) -> None:
        if self.stopping:
            model = self.stopping.pop(pick % len(self.stopping))
            self.tell(Stopped(model) if works else StopFailed(model, "stuck"))

    @rule(pick=CHOICE)
    def die(self, pick: int) -> None:
        ready = sorted(name for name, slot in self.state.slots.items() if slot.residency == "ready")
        if ready:
            self.tell(Died(ready[pick % len(ready)], "killed"))

    @rule(pick=CHOICE)
    def unload(self, pick: int) -> None:
        self.tell(Unload(sorted(self.machine.specs)[pick % len(self.machine.specs)]))

    @rule(seconds=st.sampled_from([0.1, 4.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell(Tick())

    @invariant()
    def never_over_budget(self) -> None:
        if hasattr(self, "state"):
            held = [
                self.machine.specs[name]
                for name, slot in self.state.slots.items()
                if slot.residency not in ("stopped", "failed")
            ]
            for gpu, budget in self.machine.gpu_budget_mib.items():
                assert sum(spec.gpu_mib.get(gpu, 0) for spec in held) <= budget
                assert self.state.gpus[gpu].claimed_mib == sum(spec.gpu_mib.get(gpu, 0) for spec in held)
            assert sum(spec.host_mib for spec in held) <= self.machine.host_budget_mib
            assert len(held) <= self.machine.count

    @invariant()
    def one_start_or_stop_on_a_gpu(self) -> None:
        if hasattr(self, "state"):
            used = [slot for name in self.starting for slot in self.machine.specs[name].gpu_mib]
            assert len(used) == len(set(used)), "two models start on one GPU"

    @invariant()
    def books_agree(self) -> None:
        if hasattr(self, "state"):
            assert self.state.granted == self.granted
            assert self.state.waiting.keys() == self.waiting
            for name, slot in self.state.slots.items():
                assert slot.inflight == sum(model == name for model in self.granted.values())

    def teardown(self) -> None:
        """Liveness: when everything that was asked for happens, every waiter gets a grant before its far deadline."""
        if not hasattr(self, "state"):
            return
        for _ in range(400):
            if not self.waiting:
                return
            self.one_fair_round()
        raise AssertionError(f"waits for ever: {self.waiting} in {self.state}")

    def one_fair_round(self) -> None:
        for request in sorted(self.granted):
            del self.granted[request]
            self.tell(Finish(request))
        while self.stopping:
            self.tell(Stopped(self.stopping.pop(0)))
        while self.starting:
            self.tell(Ready(self.starting.pop(0)))
        due = next_deadline(self.state, self.now)
        far = min((waiting.deadline for waiting in self.state.waiting.values()), default=None)
        if due is not None and (due != far or due < self.now + 1e5):
            self.now = due
        self.tell(Tick())


World.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestWorld = World.TestCase
