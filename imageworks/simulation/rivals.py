"""Other ways to share the card, for comparison: the same interface as the scheduler, far fewer promises.

Owns FIFO (what llama-swap does: strictly one after the other, the head of the line decides what is loaded) and LRU
(what Ollama does: whoever's model is loaded goes on, else the least recently used idle model leaves at once).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from imageworks.runtime import events as ev
from imageworks.runtime.residency import Machine, Spec


@dataclass(slots=True)
class Rival:
    """Who waits and what is loaded. `loaded` maps a model to starting, ready or stopping."""

    machine: Machine
    waiting: dict[str, str] = field(default_factory=dict)
    granted: dict[str, str] = field(default_factory=dict)
    loaded: dict[str, str] = field(default_factory=dict)
    used: dict[str, float] = field(default_factory=dict)

    def note(self, event: ev.Event, now: float) -> None:
        """Take in what happened."""
        match event:
            case ev.Arrive(request, models):
                self.waiting[request] = models[0]
            case ev.Finish(request):
                self.used[self.granted.pop(request)] = now
            case ev.Ready(model):
                self.loaded[model], self.used[model] = "ready", now
            case ev.Stopped(model):
                del self.loaded[model]
            case _:
                pass

    def free_place(self, model: str) -> bool:
        """May one more request use the model now?"""
        busy = sum(name == model for name in self.granted.values())
        return self.loaded.get(model) == "ready" and busy < self.machine.specs[model].concurrency

    def grant(self, request: str) -> ev.Effect:
        """Let a waiting request in."""
        model = self.granted[request] = self.waiting.pop(request)
        return ev.Grant(request, model)

    def make_way(self, model: str) -> list[ev.Effect]:
        """Start the model where it fits, else put idle ones away, least recently used first; one step at a time."""
        if model in self.loaded or any(state != "ready" for state in self.loaded.values()):
            return []
        if fits(self.machine, list(self.loaded), self.machine.specs[model]):
            self.loaded[model] = "starting"
            return [ev.Start(model)]
        idle = [name for name in self.loaded if name not in self.granted.values() and not self.machine.specs[name].kept]
        if not idle:
            return []
        victim = min(idle, key=lambda name: (self.used.get(name, 0.0), name))
        self.loaded[victim] = "stopping"
        return [ev.Stop(victim)]


def fits(machine: Machine, held: list[str], spec: Spec) -> bool:
    """Do GPU memory, host memory and the number of models allow one more?"""
    others = [machine.specs[name] for name in held]
    gpus = all(
        mib + sum(other.gpu_mib.get(slot, 0) for other in others) <= machine.gpu_budget_mib[slot]
        for slot, mib in spec.gpu_mib.items()
    )
    host = not spec.host_mib or spec.host_mib + sum(other.host_mib for other in others) <= machine.host_budget_mib
    return gpus and host and (not spec.counted or 1 + sum(other.counted for other in others) <= machine.count)


class Fifo:
    """Strictly in order of arrival."""

    @staticmethod
    def initial(machine: Machine) -> Rival:
        """Nothing is loaded."""
        return Rival(machine)

    @staticmethod
    def step(state: Rival, event: ev.Event, now: float) -> tuple[Rival, tuple[ev.Effect, ...]]:
        """Serve the head of the line, or make way for its model."""
        state.note(event, now)
        effects: list[ev.Effect] = []
        while state.waiting:
            request, model = next(iter(state.waiting.items()))
            if not state.free_place(model):
                effects += state.make_way(model)
                break
            effects.append(state.grant(request))
        return state, tuple(effects)

    @staticmethod
    def next_deadline(_state: Rival, _now: float) -> float | None:
        """It never acts by itself."""
        return None


class Lru(Fifo):
    """Whoever's model is loaded goes on; then the oldest other one makes the least recently used idle model leave."""

    @staticmethod
    def step(state: Rival, event: ev.Event, now: float) -> tuple[Rival, tuple[ev.Effect, ...]]:
        """Serve all that can be served, then make way for the first that cannot."""
        state.note(event, now)
        effects: list[ev.Effect] = [
            state.grant(request) for request, model in tuple(state.waiting.items()) if state.free_place(model)
        ]
        for model in dict.fromkeys(state.waiting.values()):
            effects += state.make_way(model)
        return state, tuple(effects)
