"""A story told to the pure scheduler: events in, what it asks for out, and readings of cards that obey."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from imageworks.runtime import events as ev
from imageworks.runtime.leases import Lease, LeaseAsk
from imageworks.runtime.residency import Machine, Spec
from imageworks.runtime.scheduler import State, initial, next_deadline, step

LATER = 1e6


class Play:
    """A machine and its story: `say` applies events and returns what is asked for, without the log."""

    def __init__(self, *specs: Spec, gpus: Mapping[int, int] | None = None, adopt: bool = True, **rules: Any) -> None:
        facts = {"host_budget_mib": 10_000, "count": 9, "queue": 99, "min_residency_s": 0.0} | rules
        self.machine = Machine({spec.id: spec for spec in specs}, gpus or {0: 10_000}, **facts)
        self.state: State = initial(self.machine)
        self.now, self.number = 0.0, 0
        self.moves: list[ev.Moved] = []
        if adopt:
            self.say(ev.Adopt({}))

    def say(self, *events: ev.Event, now: float | None = None) -> list[ev.Effect]:
        self.now = self.now if now is None else now
        said: list[ev.Effect] = []
        for event in events:
            self.state, effects = step(self.state, event, self.now)
            self.moves += [effect for effect in effects if isinstance(effect, ev.Moved)]
            said += [effect for effect in effects if not isinstance(effect, ev.Moved)]
        return said

    def wait(self) -> list[ev.Effect]:
        """Let time pass until it matters."""
        due = next_deadline(self.state, self.now)
        assert due is not None
        return self.say(ev.Tick(), now=due)

    def is_(self, model: str) -> str:
        return self.state.slots[model].residency

    def load(self, model: str, now: float | None = None) -> None:
        """Bring a model up, idle."""
        self.say(ev.Arrive(f"load-{model}", (model,), LATER), now=now)
        self.say(ev.Ready(model), ev.Finish(f"load-{model}"))

    def measure(self, *used: int, total: int = 12_000, **facts: Any) -> list[ev.Effect]:
        """What is in use on GPU 0, 1 …"""
        return self.say(ev.Measured({gpu: ev.Reading(total, mib, **facts) for gpu, mib in enumerate(used)}))

    def ask(self, mib: int = 4_000, *, wait: float = LATER, **facts: Any) -> list[ev.Effect]:
        self.number += 1
        facts = {"request": f"ask-{self.number}", "owner": "ann"} | facts
        return self.say(ev.Acquire(f"call-{self.number}", LeaseAsk(mib=mib, **facts), wait))

    def lease(self, mib: int = 4_000, **facts: Any) -> Lease:
        """One that is granted at once."""
        granted = [effect for effect in self.ask(mib, **facts) if isinstance(effect, ev.LeaseGranted)]
        assert granted, "not granted at once"
        return granted[0].lease

    def release(self, lease: Lease) -> list[ev.Effect]:
        return self.say(ev.Release("release", lease.id, lease.token))


@pytest.fixture
def play() -> Callable[..., Play]:
    return Play


@pytest.fixture
def gpu() -> Callable[..., Spec]:
    """A model on GPU 0 of so many MiB."""

    def make(name: str, mib: int = 6_000, *gpus: int, **facts: Any) -> Spec:
        facts = {"host_mib": 0, "grace_s": 60.0, "concurrency": 4} | facts
        return Spec(name, dict.fromkeys(gpus or (0,), mib), **facts)

    return make
