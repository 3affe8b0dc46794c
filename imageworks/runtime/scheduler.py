"""Who may use which model now: a pure `step(state, event, now) -> (state, effects)`.

The law: a request waits until its model is ready and has a free place, is granted once or refused once, and
leaves by Finish or Cancel. A model is started for its oldest waiter when it fits beside everything that holds
memory, also what is starting and stopping; where it does not fit, idle models that are not kept go first, least
recently used, and never one with a request in flight. On one GPU starts and stops happen one after the other.
A request may be overtaken by younger ones of the model in its way at most OVERTAKES times. A model whose life
failed rests for a growing time and is tried again by the next request. Nothing is granted or started before
`Adopt` said what runs already. `now` is a monotonic time in seconds. No clock, no I/O, no logging here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

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
    Ready,
    Refuse,
    RefuseCode,
    Start,
    StartFailed,
    Stop,
    StopFailed,
    Stopped,
    Tick,
    Unload,
)
from imageworks.runtime.residency import (
    LAW,
    Machine,
    Move,
    Residency,
    Slot,
    fits,
    holding,
    in_transition,
    victims,
)

OVERTAKES = 8
BACKOFF_S = 5.0
BACKOFF_MAX_S = 300.0
STOP_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request in the queue; `models[0]` is the one it waits for, `seq` its age."""

    request: str
    models: tuple[str, ...]
    deadline: float
    seq: int
    overtaken: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """Everything the scheduler knows. `waiting` is ordered by age, `granted` maps request -> model."""

    machine: Machine
    slots: Mapping[str, Slot]
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    granted: Mapping[str, str] = field(default_factory=dict)
    adopted: bool = False
    draining: bool = False
    seq: int = 0


def initial(machine: Machine) -> State:
    """The state before anything is known."""
    return State(machine, {name: Slot() for name in machine.specs})


def step(state: State, event: Event, now: float) -> tuple[State, tuple[Effect, ...]]:
    """Apply one event. Raises ValueError for an event that cannot be (a bug of the caller)."""
    draft = _Draft(state, now)
    _HANDLERS[type(event)](draft, event)
    draft.settle()
    return draft.state(), tuple(draft.effects)


def next_deadline(state: State, now: float) -> float | None:
    """When a Tick is due: the next time after `now` at which waiting alone changes something."""
    times = [waiting.deadline for waiting in state.waiting.values()]
    for name, slot in state.slots.items():
        spec = state.machine.specs[name]
        if slot.residency == "ready" and spec.managed and not spec.kept and not slot.inflight:
            times.append(slot.last_used + spec.grace_s)
        if slot.residency in ("failed", "stopped") and spec.resident:
            times.append(slot.retry_at)
        if slot.stop_again_at is not None:
            times.append(slot.stop_again_at)
    return min((time for time in times if time > now), default=None)


class _Draft:
    """The mutable working copy of one step."""

    def __init__(self, state: State, now: float) -> None:
        self.base, self.now, self.machine = state, now, state.machine
        self.slots, self.waiting, self.granted = dict(state.slots), dict(state.waiting), dict(state.granted)
        self.adopted, self.draining, self.seq = state.adopted, state.draining, state.seq
        self.effects: list[Effect] = []

    def state(self) -> State:
        return replace(
            self.base,
            slots=self.slots,
            waiting=self.waiting,
            granted=self.granted,
            adopted=self.adopted,
            draining=self.draining,
            seq=self.seq,
        )

    # events

    def arrive(self, event: Arrive) -> None:
        if event.request in self.waiting or event.request in self.granted or not event.models:
            raise ValueError(f"not a new request: {event}")
        possible = tuple(name for name in event.models if self._loadable(name))
        models = self._without_resting(possible)
        if self.draining:
            self._refuse(event.request, "shutting_down", "the proxy is stopping", 1.0)
        elif not possible:
            reason = f"`{event.models[0]}` does not fit beside the models that are kept loaded"
            self._refuse(event.request, "cannot_be_loaded", reason, None)
        elif not models:
            reason, retry_after_s = self._rest_of(possible)
            self._refuse(event.request, "model_resting", reason, retry_after_s)
        elif len(self.waiting) >= self.machine.queue and not (self.adopted and self._free_place(models[0])):
            self._refuse(event.request, "queue_full", f"{self.machine.queue} requests are waiting already", 1.0)
        else:
            self.seq += 1
            self.waiting[event.request] = Waiting(event.request, models, event.deadline, self.seq)

    def finish(self, event: Finish) -> None:
        model = self.granted.pop(event.request, None)
        if model is None:
            raise ValueError(f"not granted: {event.request}")
        slot = self.slots[model]
        served = event.ok and slot.residency == "ready"
        self._set(model, inflight=slot.inflight - 1, last_used=self.now, failures=0 if served else slot.failures)

    def cancel(self, event: Cancel) -> None:
        if self.waiting.pop(event.request, None) is None and event.request in self.granted:
            self.finish(Finish(event.request, ok=False))

    def adopt(self, event: Adopt) -> None:
        self.adopted = True
        for name, spec in self.machine.specs.items():
            seen: Residency = event.observed.get(name, "stopped") if spec.managed else "ready"
            self._set(name, residency=seen, last_used=self.now)

    def ready(self, event: Ready) -> None:
        if self.slots[event.model].residency == "starting":
            self._move(event.model, "ready", last_used=self.now, failure=None)

    def start_failed(self, event: StartFailed) -> None:
        if self.slots[event.model].residency == "starting":
            failures = self.slots[event.model].failures + 1
            self._end_of_life(event.model, event.reason, failures, backoff_s(failures))
            self._turn_away(event.model, "start_failed")

    def died(self, event: Died) -> None:
        slot = self.slots[event.model]
        if slot.residency == "starting":
            self.start_failed(StartFailed(event.model, event.reason))
        elif slot.residency == "ready" and self.machine.specs[event.model].managed:
            failures = slot.failures + 1
            # the first death since a served request is healed at once; a model that keeps dying rests
            self._end_of_life(event.model, event.reason, failures, backoff_s(failures - 1) if failures > 1 else 0.0)
            if failures > 1:
                self._turn_away(event.model, "start_failed")

    def stopped(self, event: Stopped) -> None:
        slot = self.slots[event.model]
        if slot.residency == "stopping":
            self._move(event.model, "gone_after_failure" if slot.failure else "gone", stop_again_at=None)

    def stop_failed(self, event: StopFailed) -> None:
        if self.slots[event.model].residency == "stopping":
            self._set(event.model, stop_again_at=self.now + STOP_AGAIN_S)

    def unload(self, event: Unload) -> None:
        if self.machine.specs[event.model].managed:
            self._set(event.model, dismissed=True)

    def drain(self, _event: Drain) -> None:
        self.draining = True
        for request in tuple(self.waiting):
            self._refuse(request, "shutting_down", "the proxy is stopping", 1.0)

    def tick(self, _event: Tick) -> None:
        """Nothing but the passing of time, which `settle` looks at."""

    # consequences

    def settle(self) -> None:
        self._expire()
        if self.adopted:
            self._grant_all()
            self._stop_again()
        if self.adopted and not self.draining:
            self._start_for_waiters()
            self._start_residents()
            self._unload_idle()

    def _expire(self) -> None:
        for waiting in tuple(self.waiting.values()):
            if waiting.deadline <= self.now:
                model = waiting.models[0]
                reason = f"waited too long for `{model}` ({self.slots[model].residency})"
                self._refuse(waiting.request, "queue_timeout", reason, 5.0)

    def _grant_all(self) -> None:
        blocked: dict[str, Waiting] = {}  # oldest waiter of each model that is not up
        for waiting in tuple(self.waiting.values()):
            model = waiting.models[0]
            if self._free_place(model):
                overtaken = [
                    old for other, old in blocked.items() if model in (victims(self.machine, self.slots, other) or ())
                ]
                if all(old.overtaken < OVERTAKES for old in overtaken):
                    self._grant(waiting, overtaken, blocked)
            elif self.slots[model].residency in ("stopped", "failed", "stopping"):
                blocked.setdefault(model, waiting)

    def _grant(self, waiting: Waiting, overtaken: list[Waiting], blocked: dict[str, Waiting]) -> None:
        for old in overtaken:
            older = replace(old, overtaken=old.overtaken + 1)
            self.waiting[old.request] = blocked[old.models[0]] = older
        model = waiting.models[0]
        del self.waiting[waiting.request]
        self.granted[waiting.request] = model
        self._set(model, inflight=self.slots[model].inflight + 1, last_used=self.now, dismissed=False)
        self.effects.append(Grant(waiting.request, model))

    def _start_for_waiters(self) -> None:
        reserved: list[str] = []
        for waiting in tuple(self.waiting.values()):
            model = waiting.models[0]
            if model in reserved or self.slots[model].residency in ("ready", "starting"):
                continue
            if not self._start(model, reserved):
                reserved.append(model)

    def _start_residents(self) -> None:
        wanted = {waiting.models[0] for waiting in self.waiting.values()}
        for name, spec in self.machine.specs.items():
            if (
                spec.resident
                and name not in wanted
                and not self.slots[name].dismissed
                and self.slots[name].retry_at <= self.now
                and not any(self.slots[other].residency == "starting" for other in spec.in_turn_with)
            ):
                self._start(name, sorted(wanted - set(holding(self.slots))))

    def _start(self, model: str, reserved: list[str]) -> bool:
        """Start `model`, or make room for it; False when it has to wait."""
        slot = self.slots[model]
        if slot.residency not in ("stopped", "failed") or in_transition(self.machine, self.slots, model):
            return False
        spec = self.machine.specs[model]
        if fits(self.machine, [*holding(self.slots), *reserved], spec):
            self._move(model, "start", failure=None, dismissed=False)
            self.effects.append(Start(model))
            return True
        leaving = victims(self.machine, self.slots, model, reserved) or ()
        if all(self._idle(name) for name in leaving):
            for name in leaving:
                self._stop(name)
        return False

    def _unload_idle(self) -> None:
        wanted = {waiting.models[0] for waiting in self.waiting.values()}
        for name, slot in tuple(self.slots.items()):
            spec = self.machine.specs[name]
            due = slot.dismissed or (not spec.kept and slot.last_used + spec.grace_s <= self.now)
            if spec.managed and self._idle(name) and due and name not in wanted:
                self._stop(name)

    def _stop_again(self) -> None:
        for name, slot in tuple(self.slots.items()):
            if slot.stop_again_at is not None and slot.stop_again_at <= self.now:
                self._set(name, stop_again_at=None)
                self.effects.append(Stop(name))

    # small words

    def _idle(self, model: str) -> bool:
        return self.slots[model].residency == "ready" and not self.slots[model].inflight

    def _loadable(self, model: str) -> bool:
        """Could it ever be loaded, with all that is kept staying?"""
        kept = [name for name, spec in self.machine.specs.items() if spec.kept]
        return fits(self.machine, kept, self.machine.specs[model])

    def _free_place(self, model: str) -> bool:
        slot = self.slots[model]
        return slot.residency == "ready" and slot.inflight < self.machine.specs[model].concurrency

    def _stop(self, model: str) -> None:
        if not in_transition(self.machine, self.slots, model):
            self._move(model, "stop")
            self.effects.append(Stop(model))

    def _end_of_life(self, model: str, reason: str, failures: int, rest_s: float) -> None:
        """A life failed: stop what may be left of it before the memory counts as free."""
        self._move(model, "stop", failure=reason, failures=failures, retry_at=self.now + rest_s)
        self.effects.append(Stop(model))

    def _turn_away(self, model: str, code: RefuseCode) -> None:
        for waiting in tuple(self.waiting.values()):
            if waiting.models[0] == model:
                others = self._without_resting(waiting.models[1:])
                if others:
                    self.waiting[waiting.request] = replace(waiting, models=others)
                else:
                    reason, retry_after_s = self._rest_of((model,))
                    self._refuse(waiting.request, code, reason, retry_after_s)

    def _without_resting(self, models: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in models if self.slots[name].retry_at <= self.now)

    def _rest_of(self, models: tuple[str, ...]) -> tuple[str, float]:
        """Why the first of `models` rests, and how long until one may be tried again."""
        rest_s = min(self.slots[name].retry_at for name in models) - self.now
        return f"`{models[0]}` failed: {self.slots[models[0]].failure}", rest_s

    def _refuse(self, request: str, code: RefuseCode, reason: str, retry_after_s: float | None) -> None:
        self.waiting.pop(request, None)
        self.effects.append(Refuse(request, code, reason, retry_after_s))

    def _move(self, model: str, move: Move, **changes: Any) -> None:
        self._set(model, residency=LAW[self.slots[model].residency, move], **changes)

    def _set(self, model: str, **changes: Any) -> None:
        self.slots[model] = replace(self.slots[model], **changes)


def backoff_s(failures: int) -> float:
    """Rest after the n-th failure in a row, in seconds: 5, 10, 20 … 300."""
    return float(min(BACKOFF_MAX_S, BACKOFF_S * 2 ** min(failures - 1, 10)))


_HANDLERS: Mapping[type[Event], Callable[[_Draft, Any], None]] = {
    Arrive: _Draft.arrive,
    Finish: _Draft.finish,
    Cancel: _Draft.cancel,
    Adopt: _Draft.adopt,
    Ready: _Draft.ready,
    StartFailed: _Draft.start_failed,
    Stopped: _Draft.stopped,
    StopFailed: _Draft.stop_failed,
    Died: _Draft.died,
    Unload: _Draft.unload,
    Drain: _Draft.drain,
    Tick: _Draft.tick,
}
