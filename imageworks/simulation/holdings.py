"""What is held, as an outside observer of the scheduler sees it.

Owns the observer's books of models and leases: which state each is in and since when, how many MiB it claims on which
slot, what the last readings said. It trusts neither the scheduler's state nor its readings; only in which lease a model
lives is taken from the scheduler, for nobody else decides that. Part of `Book`, which tells it what happens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from imageworks.runtime import events as ev
from imageworks.runtime.leases import Lease
from imageworks.runtime.residency import Machine
from imageworks.simulation.agenda import Agenda
from imageworks.simulation.cards import Cards
from imageworks.simulation.scenario import Scenario

FREE = frozenset({"stopped", "failed", "free"})
BOUND_SLACK_S = 1.0


@dataclass(slots=True)
class Held:
    """A lease as the observer knows it: when its ttl began, by the scheduler's clock and by true time awake."""

    lease: Lease
    renewed: float
    renewed_awake: float
    state: str = "active"


class Holdings:
    """Models, leases, claims and readings of one life of the manager; the log spans all lives."""

    def __init__(self, scenario: Scenario, agenda: Agenda, cards: Cards) -> None:
        self.scenario, self.agenda, self.cards = scenario, agenda, cards
        self.machine = scenario.machine
        self.conflicts = conflicts(scenario.machine)
        self.now = 0.0
        self.state: Any = None
        self.log: list[ev.Moved] = []
        self.removed: set[str] = set()
        self.forget_holdings()

    def forget_holdings(self) -> None:
        """A new life of the manager: nothing is known of what is held."""
        self.models: dict[str, str] = {}
        self.leases: dict[str, Held] = {}
        self.open_calls: dict[str, Any] = {}
        self.since: dict[str, float] = {}
        self.claims: dict[int, dict[str, int]] = {slot: {} for slot in self.machine.gpu_budget_mib}
        self.claimed: dict[int, int] = dict.fromkeys(self.machine.gpu_budget_mib, 0)
        self.bounds: list[tuple[float, str, str, float]] = []
        self.readings: dict[int, tuple[ev.Reading | None, float]] = {}
        self.lost: set[int] = set()
        self.gone: set[str] = set()  # the driver said that the tree is gone, since it was last asked to start or end it
        self.failed_lives: set[str] = set()
        self.pardoned: set[str] = set()
        self.promised: set[str] = set()
        self.awaited: set[str] = set()  # came up for a request; others come because they are to be there
        self.fruitless: Counter[str] = Counter()  # lives in a row for somebody in which nobody was served
        self.forget_moves()

    def forget_moves(self) -> None:
        """A new step: what moved in the last one is history."""
        self.before: dict[str, str] = {}
        self.freed: dict[str, tuple[bool, bool, dict[int, int]]] = {}  # tree seen gone, pardoned, what others claim
        self.broken_moves: dict[str, str] = {}

    # moves

    def move(self, effect: ev.Moved) -> None:
        """A model or lease went from one state to another."""
        subject, after = effect.subject, effect.after
        self.log.append(effect)
        held = [slot for slot, claims in self.claims.items() if subject in claims] if after in FREE else ()
        known = self._moved_lease(effect) if effect.kind == "lease" else self._moved_model(effect)
        if after in FREE:
            left = {slot: self.claimed[slot] for slot in held}
            self.freed[subject] = (subject in self.gone, subject in self.pardoned, left)
        self.before.setdefault(subject, known)
        if known != effect.before:
            self.broken_moves[subject] = known
        self.since[subject] = self.now

    def _moved_lease(self, effect: ev.Moved) -> str:
        """What the lease was before, as far as is known."""
        lease = self.leases.get(effect.subject)
        if effect.after in FREE:
            self.claim(effect.subject, {})
        if lease is None:
            return effect.before
        known, lease.state = lease.state, effect.after
        return known

    def _moved_model(self, effect: ev.Moved) -> str:
        """What the model was before, as far as is known."""
        model, after = effect.subject, effect.after
        known = self.models.get(model, "stopped")
        if model in self.removed and known in FREE and effect.before in FREE:
            known = effect.before  # it was forgotten, and came back as something new
        self.models[model] = after
        if effect.before == "ready" and model in self.awaited and model not in self.failed_lives:
            self.fruitless[model] += 1
        claim = self._claim_of(model, after)
        if claim is not None:
            self.claim(model, claim)
        if after not in FREE and self.lease_wanted_on(self.scenario.machine.specs[model].gpu_mib):
            self.promised.add(model)
        bound = self._bound(after)
        if bound is not None:
            heappush(self.bounds, (self.now + bound, model, after, self.now))
        return known

    def _bound(self, state: str) -> float | None:
        """How long a model may be in a state, in seconds."""
        if state == "starting":
            return self.scenario.start_timeout_s + BOUND_SLACK_S
        if state in ("waking", "sleeping"):
            return self.scenario.stop_timeout_s + self.machine.reclaim_s + BOUND_SLACK_S
        return self.machine.reclaim_s + BOUND_SLACK_S if state == "reclaiming" else None

    def _claim_of(self, model: str, residency: str) -> Mapping[int, int] | None:
        """What a model claims in a state; None: what it did before."""
        spec = self.scenario.machine.specs[model]
        if residency in FREE:
            return {}
        if residency in ("stopping", "reclaiming", "quarantined"):
            return None
        return spec.asleep_mib if residency == "asleep" else spec.gpu_mib

    def claim(self, holder: str, mib: Mapping[int, int]) -> None:
        """Let a holder claim exactly this."""
        for slot, claims in self.claims.items():
            new, old = mib.get(slot, 0), claims.pop(holder, 0)
            if new:
                claims[holder] = new
            self.claimed[slot] += new - old

    # questions

    def inside(self, model: str) -> str | None:
        """The lease that a model lives in."""
        slot = self.state.slots.get(model)
        return None if slot is None else slot.lease

    def charged(self, slot: int) -> int:
        """MiB claimed on a slot; models inside a lease count within it."""
        claims, total = self.claims[slot], self.claimed[slot]
        if self.leases and len(claims) > 1:
            for lease in self.leases.keys() & claims.keys():
                inner = sum(
                    mib for name, mib in claims.items() if name not in self.leases and self.inside(name) == lease
                )
                total -= min(claims[lease], inner)
        return total

    def reading(self, slot: int) -> ev.Reading | None:
        """The last reading of a slot, if there is one."""
        return self.readings[slot][0] if slot in self.readings else None

    def unknown_mib(self, slot: int, but: str = "") -> int:
        """MiB that processes use there of which the scheduler knows no holder; `but` is not looked at."""
        known = {self.leases[name].lease.ask.request if name in self.leases else name for name in self.claims[slot]}
        return sum(mib for name, mib in self.cards.held[slot].items() if name not in known and name != but)

    def excused(self, slot: int) -> bool:
        """Somebody broke their word there, or the card is lost: it need not be full of good service any more."""
        return slot in self.cards.touched or slot in self.cards.lost

    def on_lost(self, model: str) -> bool:
        """Does the model need a card that is lost?"""
        return not self.lost.isdisjoint(self.scenario.machine.specs[model].gpu_mib)

    def lease_wanted_on(self, slots: Iterable[int]) -> bool:
        """Is there, or waits there, an exclusive lease for one of these slots?"""
        wanted = set(slots)
        for call in self.open_calls.values():
            if isinstance(call, ev.Acquire) and (not call.ask.gpus or not wanted.isdisjoint(call.ask.gpus)):
                return True
        return any(not wanted.isdisjoint(held.lease.tokens) for held in self.leases.values())

    def quarantined(self) -> list[str]:
        """Holders whose memory is not proved free."""
        held = [name for name, state in self.models.items() if state == "quarantined"]
        return held + [name for name, lease in self.leases.items() if lease.state == "quarantined"]

    def expired(self) -> str | None:
        """A lease that is active after its ttl."""
        for name, held in self.leases.items():
            if held.state == "active" and self.now > held.renewed + held.lease.ask.ttl_s + 1e-3:
                return name
        return None

    def overstayed(self) -> str | None:
        """A model that is in a bounded state for too long."""
        heap = self.bounds
        while heap and heap[0][0] < self.now:
            _, model, state, since = heappop(heap)
            if self.models.get(model) == state and self.since[model] == since:
                return f"{model} is {state} for {self.now - since:.1f} s"
        return None


def conflicts(machine: Machine) -> frozenset[tuple[str, str]]:
    """Pairs of models that no GPU can hold together, though each of them alone."""
    budget = machine.gpu_budget_mib
    fitting = {
        name: spec.gpu_mib
        for name, spec in machine.specs.items()
        if all(mib <= budget[slot] for slot, mib in spec.gpu_mib.items())
    }
    return frozenset(
        (one, other)
        for one, need in fitting.items()
        for other, beside in fitting.items()
        if one != other and any(need[slot] + beside[slot] > budget[slot] for slot in need.keys() & beside.keys())
    )
