"""Every order of events in a small world, until nothing new comes: 2 GPUs, 1 or 2 models, 3 owners of leases.

Owns the small world, its alphabet, and a breadth-first search over the scheduler itself: the specification is the code.
Time stands still here (a lease that is not renewed is one whose holder is gone; a model that failed rests for ever), so
the states are finite. What time does is the business of the random schedules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from imageworks.runtime import events as ev
from imageworks.runtime import scheduler
from imageworks.runtime.leases import LeaseAsk
from imageworks.runtime.residency import Machine, Spec
from imageworks.runtime.scheduler import State

FAR_S = 1e6
OWNERS = (
    LeaseAsk("qa", "a", 4, gpus=(0,), exclusive=True, ttl_s=60.0),
    LeaseAsk("qb", "b", 5, ttl_s=60.0),
    LeaseAsk("qc", "c", 5, count=2, ttl_s=60.0, priority=1),
)
MODELS = {"y": Spec("y", {0: 5, 1: 5}, 0, FAR_S, 1), "x": Spec("x", {0: 7}, 0, FAR_S, 1)}


def small_world(models: int = 1) -> Machine:
    """Two GPUs of 10 MiB; one model that needs both, or a second one on the first GPU as well."""
    return Machine(
        specs=dict(tuple(MODELS.items())[:models]),
        gpu_budget_mib={0: 10, 1: 10},
        host_budget_mib=10,
        count=2,
        queue=8,
        uuids={0: "GPU-0", 1: "GPU-1"},
        min_residency_s=0.0,
        max_overtakes=0,
        tolerance_mib=0,
    )


TOLD = 40
"""So many steps of the way to a violation are kept."""


@dataclass(frozen=True, slots=True)
class Closure:
    """The result. `closed`: no order of events leads anywhere else. `violations` with the way that leads there."""

    states: int
    steps: int
    depth: int
    closed: bool
    violations: tuple[str, ...]


def explore(most: int, machine: Machine, *, failures: bool) -> Closure:
    """Search until closed or until `most` states are known."""
    first = scheduler.initial(machine)
    scheduler.step(first, ev.Adopt({}), 0.0)
    known: set[Hashable] = {scheduler.key(first, 0.0)}
    waiting: deque[tuple[State, int, tuple[str, ...]]] = deque([(first, 0, ())])
    steps = deepest = 0
    violations: list[str] = []
    while waiting and len(known) < most and not violations:
        state, depth, path = waiting.popleft()
        deepest = max(deepest, depth)
        for event in alphabet(state, failures=failures):
            following = state.copy()
            following, effects = scheduler.step(following, event, 0.0)
            steps += 1
            wrong = complaint(state, following, event, effects)
            if wrong is not None:
                violations.append(f"{wrong} after {' · '.join([*path, _word(event)])}")
                break
            found = scheduler.key(following, 0.0)
            if found not in known:
                known.add(found)
                waiting.append((following, depth + 1, (*path, _word(event)) if depth < TOLD else path))
    return Closure(len(known), steps, deepest, not waiting and not violations, tuple(violations))


def alphabet(state: State, *, failures: bool) -> Iterator[ev.Event]:
    """What can happen next."""
    for model, slot in state.slots.items():
        request = f"r{model}"
        if request in state.granted:
            yield ev.Finish(request, ok=True)
        elif request in state.waiting:
            yield ev.Cancel(request)
        else:
            yield ev.Arrive(request, (model,), FAR_S)
        yield from _answers(model, slot.residency, failures=failures)
    for ask in OWNERS:
        yield from _lease_events(state, ask)


def _answers(model: str, residency: str, *, failures: bool) -> Iterator[ev.Event]:
    if residency == "starting":
        yield ev.Ready(model)
        if failures:
            yield ev.StartFailed(model, "broken", again=True)
    elif residency == "ready" and failures:
        yield ev.Died(model, "killed")
    elif residency == "stopping":
        yield ev.Stopped(model)


def _lease_events(state: State, ask: LeaseAsk) -> Iterator[ev.Event]:
    found = state.by_request.get(ask.request)
    if found is None:
        yield ev.Acquire(f"c{ask.request}", ask, FAR_S)
    elif isinstance(found, int):
        yield ev.Withdraw(f"c{ask.request}")
    else:
        lease = state.leases[found]
        if lease.state == "active":
            yield ev.Release("release", lease.id, lease.token)
            yield ev.HolderGone(lease.id)
        elif lease.state == "reclaiming":
            yield ev.Reclaimed(lease.id)


def complaint(before: State, after: State, event: ev.Event, effects: tuple[ev.Effect, ...]) -> str | None:
    """What is wrong with this step, in one sentence."""
    return _memory(after) or _motion(after) or _requests(before, after, event, effects) or _stuck(after)


def _memory(state: State) -> str | None:
    for gpu, book in state.gpus.items():
        models = {name for name, slot in state.slots.items() if gpu in slot.held}
        leases = {name for name, lease in state.leases.items() if gpu in lease.tokens}
        held = sum(state.slots[name].held[gpu] for name in models) + sum(state.leases[name].ask.mib for name in leases)
        if held > book.budget_mib:
            return f"GPU {gpu} holds {held} of {book.budget_mib}"
        alone = [name for name in leases if state.leases[name].ask.exclusive]
        if alone and len(models) + len(leases) > 1:
            return f"GPU {gpu} is {alone[0]}'s alone, and holds {sorted(models | leases)}"
    return None


def _motion(state: State) -> str | None:
    for gpu in state.gpus:
        rising = [
            name for name, slot in state.slots.items() if gpu in slot.spec.gpu_mib and slot.residency == "starting"
        ]
        falling = [
            name for name, slot in state.slots.items() if gpu in slot.spec.gpu_mib and slot.residency == "stopping"
        ]
        if len(rising) > 1 or (rising and falling):
            return f"on GPU {gpu} {rising} start while {falling} stop"
    return None


def _requests(before: State, after: State, event: ev.Event, effects: tuple[ev.Effect, ...]) -> str | None:
    died = event.model if isinstance(event, ev.Died) else None
    for effect in effects:
        if isinstance(effect, ev.Grant) and after.slots[effect.model].residency != "ready":
            return f"{effect.request} was granted {effect.model}, which is {after.slots[effect.model].residency}"
        if isinstance(effect, ev.Stop) and effect.model != died and before.slots[effect.model].inflight:
            ended = isinstance(event, ev.Finish) and event.request == f"r{effect.model}"
            if not ended and not isinstance(event, (ev.Cancel, ev.StartFailed)):
                return f"{effect.model} is stopped under a request"
    for model, slot in after.slots.items():
        if slot.inflight != sum(name == model for name in after.granted.values()):
            return f"{model} counts {slot.inflight} requests in flight"
    return None


def _stuck(state: State) -> str | None:
    """Somebody waits, and nothing that is under way could change that."""
    under_way = (
        state.granted
        or state.leases
        or any(slot.residency in ("starting", "stopping", "reclaiming") for slot in state.slots.values())
    )
    waiting = [*state.waiting, *state.by_call]
    return f"{waiting[0]} waits for nothing" if waiting and not under_way else None


def _word(event: ev.Event) -> str:
    name = type(event).__name__
    about = getattr(event, "request", None) or getattr(event, "model", None) or getattr(event, "lease", None)
    return f"{name} {about or getattr(event, 'call', '')}"
