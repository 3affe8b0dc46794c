"""What an outside observer of the scheduler writes down: an account of its own, made from events and effects alone.

Owns the observer's view: who claims how many MiB where, who waits until when, which tokens were ever given, when a
state was entered. It survives the manager's restarts. It trusts neither the scheduler's state nor its readings; where an
invariant speaks of the truth, it looks at the cards and programs. It judges nothing: `invariants` do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from imageworks.runtime import events as ev
from imageworks.runtime.leases import Lease
from imageworks.runtime.residency import Machine
from imageworks.simulation.agenda import Agenda
from imageworks.simulation.cards import Cards
from imageworks.simulation.core import Core
from imageworks.simulation.programs import Programs
from imageworks.simulation.scenario import Scenario
from imageworks.simulation.store import Saved, Store

FREE = frozenset({"stopped", "failed", "free"})
BOUND_SLACK_S = 1.0


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that did not hold: its number, what was seen, at which step and time."""

    number: int
    text: str
    step: int
    now: float


@dataclass(slots=True)
class Held:
    """A lease as the observer knows it: when its ttl began, by the scheduler's clock and by true time awake."""

    lease: Lease
    renewed: float
    renewed_awake: float
    state: str = "active"


@dataclass(slots=True)
class Open:
    """A request without its final answer. `stale`: it showed a token that is worth nothing. `passed` counts younger ones that went first."""

    subject: str
    models: tuple[str, ...]
    deadline: float
    since: float
    number: int
    stale: bool = False
    passed: int = 0


class Book:
    """The observer's account of one run, over all lives of the manager."""

    def __init__(
        self, scenario: Scenario, core: Core, agenda: Agenda, store: Store, cards: Cards, programs: Programs
    ) -> None:
        self.scenario, self.core, self.agenda = scenario, core, agenda
        self.store, self.cards, self.programs = store, cards, programs
        self.machine = scenario.machine
        self.conflicts = conflicts(scenario.machine)
        self.places = max(spec.concurrency for spec in scenario.machine.specs.values())
        self.violations: list[Violation] = []
        self.events = 0
        self.now = self.paused_s = 0.0
        self.state: Any = None
        self.event: ev.Event = ev.Tick()
        # over all lives
        self.managers = 0
        self.tokens: dict[str, int] = dict.fromkeys(self.machine.uuids.values(), 0)
        self.log: list[ev.Moved] = []
        self.told: dict[str, Mapping[int, int]] = {}
        self.given_to: dict[str, Mapping[int, int]] = {}
        self.forgotten: set[str] = set()
        self.removed: set[str] = set()
        self.over: set[str] = set()
        self.last_asked = False
        self._fresh()

    def _fresh(self) -> None:
        """What a new life of the manager does not know."""
        self.saved: Saved | None = None
        self.adopted = self.measured = False
        self.models: dict[str, str] = {}
        self.since: dict[str, float] = {}
        self.claims: dict[int, dict[str, int]] = {slot: {} for slot in self.machine.gpu_budget_mib}
        self.claimed: dict[int, int] = dict.fromkeys(self.machine.gpu_budget_mib, 0)
        self.leases: dict[str, Held] = {}
        self.open_requests: dict[str, Open] = {}
        self.open_calls: dict[str, Any] = {}
        self.deadlines: list[tuple[float, str]] = []
        self.bounds: list[tuple[float, str, str, float]] = []
        self.granted: dict[str, str] = {}
        self.inflight: Counter[str] = Counter()
        self.readings: dict[int, tuple[ev.Reading | None, float]] = {}
        self.arrivals = 0
        self.lost: set[int] = set()
        self.cancelled: set[str] = set()
        self.gone: set[str] = set()  # the driver said that the tree is gone, since it was last asked to start or end it
        self.let_go: set[str] = set()  # the holder said that it uses nothing any more
        self.told_to_end: set[str] = set()
        self.pardoned: set[str] = set()
        self.failed_lives: set[str] = set()
        self.dismissed: set[str] = set()
        self.fruitless: Counter[str] = Counter()  # lives in a row in which nobody was served
        self.started: set[str] = set()
        self.doubled: set[str] = set()
        self.promised: set[str] = set()
        self.superset: set[int] = set()  # slots where more was found at the start of this life than fits
        self._clear_step()

    def _clear_step(self) -> None:
        """What is known of the present step only."""
        self.answering: dict[str, Any] = {}
        self.unasked: set[str] = set()
        self.ending: dict[str, Held] = {}
        self.token_before: dict[str, int] = {}
        self.before: dict[str, str] = {}
        self.freed: dict[str, tuple[bool, dict[int, int]]] = {}
        self.broken_moves: dict[str, str] = {}
        self.most_passed: Open | None = None
        self.dirty = False

    # told by the world

    def restarted(self, saved: Saved | None, machine: Machine) -> None:
        """A new life of the manager begins, from what was saved and with the plan in force."""
        self._fresh()
        self.machine = machine
        self.saved = saved
        if saved is None:
            self.told.clear()

    def awake(self) -> float:
        """True seconds in which the manager was not stopped."""
        return self.agenda.now - self.paused_s

    def reread(self) -> Saved | None:
        """What the file says when it is read once more."""
        return self.store.read()

    # notes

    def begin(self, event: ev.Event, effects: tuple[ev.Effect, ...], state: Any, now: float) -> None:
        """Write down one step."""
        self.events += 1
        self.event, self.state, self.now = event, state, now
        if self.dirty:
            self._clear_step()
        note = NOTES.get(type(event))
        if note is not None:
            note(self, event)
        if effects:
            self.dirty = True
            for effect in effects:
                note = NOTES.get(type(effect))
                if note is not None:
                    note(self, effect)

    def _arrive(self, event: ev.Arrive) -> None:
        self.arrivals += 1
        stale = False
        if event.lease is not None:
            held = self.leases.get(event.lease)
            stale = held is None or held.state != "active" or held.lease.token != event.token
        self.open_requests[event.request] = Open(
            event.request, event.models, event.deadline, self.now, self.arrivals, stale
        )
        heappush(self.deadlines, (event.deadline, event.request))

    def _finish(self, event: ev.Finish | ev.Cancel) -> None:
        model = self.granted.pop(event.request, None)
        if model is not None:
            self.inflight[model] -= 1
        if isinstance(event, ev.Cancel) and self.open_requests.pop(event.request, None) is not None:
            self.cancelled.add(event.request)

    def _adopt(self, event: ev.Adopt) -> None:
        self.adopted = True
        self.started.update(event.observed)
        for lease in event.leases:
            state = "active" if lease.state == "active" else "reclaiming"
            self.leases[lease.id] = Held(lease, self.now, self.awake(), state)
            self._claim(lease.id, dict.fromkeys(lease.tokens, lease.ask.mib))
            self.over.discard(lease.id)
            self.promised.update(lease.restore)

    def note_superset(self) -> None:
        """What was found may be more than fits, until what is over ends by its ttl."""
        self.superset = {slot for slot, mib in self.machine.gpu_budget_mib.items() if self.charged(slot) > mib}

    def _stopped(self, event: ev.Stopped) -> None:
        self.gone.add(event.model)

    def _reclaimed(self, event: ev.Reclaimed) -> None:
        self.gone.add(event.lease)

    def _failed_life(self, event: Any) -> None:
        self.failed_lives.add(event.model)

    def _unload(self, event: ev.Unload) -> None:
        self.dismissed.add(event.model)

    def _measured(self, event: ev.Measured) -> None:
        self.lost.update(event.lost)
        for slot, reading in event.readings.items():
            if reading is not None:
                self.measured = True
                self.readings[slot] = (reading, self.now)
            elif slot in self.readings:
                self.readings[slot] = (None, self.readings[slot][1])

    def _pardon(self, event: ev.Pardon) -> None:
        self.pardoned.add(event.holder)
        self.gone.add(event.holder)

    def _call(self, event: Any) -> None:
        self.open_calls[event.call] = event
        if isinstance(event, ev.Acquire):
            heappush(self.deadlines, (event.deadline, event.call))
        elif isinstance(event, ev.ForceRelease):
            self.told_to_end.add(event.lease)
        elif isinstance(event, (ev.Release, ev.Handover)):
            held = self.leases.get(event.lease)
            if held is not None and held.lease.token == event.token:
                if isinstance(event, ev.Release) or event.model is not None:
                    self.told_to_end.add(event.lease)
                    self.let_go.add(event.lease)
                if isinstance(event, ev.Handover) and event.model is not None:
                    self.promised.add(event.model)

    def _told_to_end(self, event: ev.HolderGone | ev.Unsaved) -> None:
        self.told_to_end.add(event.lease)
        if isinstance(event, ev.Unsaved):
            self.let_go.add(event.lease)

    def _withdraw(self, event: ev.Withdraw) -> None:
        if self.open_calls.pop(event.call, None) is not None:
            self.cancelled.add(event.call)

    def _reload(self, event: ev.Reload) -> None:
        self.machine = event.machine
        self.removed.update(self.scenario.machine.specs.keys() - event.machine.specs.keys())

    def _answer_request(self, effect: ev.Grant | ev.Refuse) -> None:
        asked = self.open_requests.pop(effect.request, None)
        if asked is None:
            self.unasked.add(effect.request)
            return
        self.answering[effect.request] = asked
        if isinstance(effect, ev.Grant):
            self.granted[effect.request] = effect.model
            self.inflight[effect.model] += 1
            self.dismissed.discard(effect.model)
            self.fruitless[effect.model] = 0
            self._count_passed(asked, effect.model)

    def _count_passed(self, asked: Open, model: str) -> None:
        """Older waiters whose model cannot be loaded beside this one were passed, where nothing else holds them up."""
        for waiter in self.open_requests.values():
            if waiter.number > asked.number:
                return
            wanted = waiter.models[0]
            if (
                (wanted, model) in self.conflicts
                and self.models.get(wanted, "stopped") == "stopped"
                and self._open(wanted)
            ):
                waiter.passed += 1
                if self.most_passed is None or waiter.passed > self.most_passed.passed:
                    self.most_passed = waiter

    def _open(self, model: str) -> bool:
        """Is there nothing but other requests in the model's way?"""
        for slot in self.scenario.machine.specs[model].gpu_mib:
            if slot in self.lost or (slot in self.readings and self.readings[slot][0] is None):
                return False
            if self.cards.tails[slot]:
                return False
            if any(self.models.get(holder) != "ready" for holder in self.claims[slot]):
                return False
        return True

    def _start(self, effect: ev.Start | ev.Wake) -> None:
        model = effect.model
        if isinstance(effect, ev.Start):
            if model in self.started and model not in self.gone:
                self.doubled.add(model)
            self.started.add(model)
        self.gone.discard(model)
        self.failed_lives.discard(model)
        self.pardoned.discard(model)

    def _answer_call(self, effect: Any) -> None:
        asked = self.open_calls.pop(effect.call, None)
        if asked is None:
            self.unasked.add(effect.call)
        else:
            self.answering[effect.call] = asked

    def _lease_granted(self, effect: ev.LeaseGranted) -> None:
        self._answer_call(effect)
        lease = effect.lease
        if lease.id not in self.leases:
            self.leases[lease.id] = Held(lease, self.now, self.awake())
            self._claim(lease.id, dict.fromkeys(lease.tokens, lease.ask.mib))

    def _lease_answered(self, effect: ev.LeaseAnswered) -> None:
        self._answer_call(effect)
        held = self.leases.get(effect.lease.id)
        if held is not None:
            self.token_before[effect.lease.id] = held.lease.token
            if isinstance(self.answering.get(effect.call), (ev.Renew, ev.Handover)):
                held.lease, held.renewed, held.renewed_awake = effect.lease, self.now, self.awake()

    def _reclaim(self, effect: ev.Reclaim) -> None:
        held = self.leases.get(effect.lease)
        if held is not None:
            self.ending[effect.lease] = held

    def _lease_ended(self, effect: ev.LeaseEnded) -> None:
        held = self.leases.pop(effect.lease, None)
        if held is not None:
            self.ending[effect.lease] = held
            self._claim(effect.lease, {})
        self.told.pop(effect.lease, None)

    def _moved(self, effect: ev.Moved) -> None:
        subject, after = effect.subject, effect.after
        self.log.append(effect)
        held = [slot for slot, claims in self.claims.items() if subject in claims] if after in FREE else ()
        if effect.kind == "lease":
            lease = self.leases.get(subject)
            known = lease.state if lease is not None else effect.before
            if lease is not None:
                lease.state = after
            if after in FREE:
                self._claim(subject, {})
        else:
            known = self.models.get(subject, "stopped")
            if subject in self.removed and known in FREE and effect.before in FREE:
                known = effect.before  # it was forgotten, and came back as something new
            self.models[subject] = after
            if effect.before == "ready" and subject not in self.failed_lives:
                self.fruitless[subject] += 1
            claim = self._claim_of(subject, after)
            if claim is not None:
                self._claim(subject, claim)
            if after not in FREE and self.lease_wanted_on(self.scenario.machine.specs[subject].gpu_mib):
                self.promised.add(subject)
        if after in FREE:
            self.freed[subject] = (subject in self.gone, {slot: self.claimed[slot] for slot in held})
        self.before.setdefault(subject, known)
        if known != effect.before:
            self.broken_moves[subject] = known
        self.since[subject] = self.now
        bound = self._bound(after) if effect.kind == "model" else None
        if bound is not None:
            heappush(self.bounds, (self.now + bound, subject, after, self.now))

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

    def _claim(self, holder: str, mib: Mapping[int, int]) -> None:
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

    def unknown_mib(self, slot: int, but: str) -> int:
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

    def overdue(self) -> str | None:
        """A request or call that is still open after its deadline."""
        heap, limit = self.deadlines, self.now - 1e-3
        while heap and heap[0][0] < limit:
            _, subject = heappop(heap)
            if subject in self.open_requests or subject in self.open_calls:
                return subject
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


NOTES: Mapping[type[Any], Callable[[Book, Any], None]] = {
    ev.Arrive: Book._arrive,
    ev.Finish: Book._finish,
    ev.Cancel: Book._finish,
    ev.Adopt: Book._adopt,
    ev.Stopped: Book._stopped,
    ev.Reclaimed: Book._reclaimed,
    ev.StartFailed: Book._failed_life,
    ev.Died: Book._failed_life,
    ev.WakeFailed: Book._failed_life,
    ev.SleepFailed: Book._failed_life,
    ev.Unload: Book._unload,
    ev.Measured: Book._measured,
    ev.Pardon: Book._pardon,
    ev.Acquire: Book._call,
    ev.Renew: Book._call,
    ev.Release: Book._call,
    ev.ForceRelease: Book._call,
    ev.Handover: Book._call,
    ev.HolderGone: Book._told_to_end,
    ev.Unsaved: Book._told_to_end,
    ev.Withdraw: Book._withdraw,
    ev.Reload: Book._reload,
    ev.Grant: Book._answer_request,
    ev.Refuse: Book._answer_request,
    ev.Start: Book._start,
    ev.Wake: Book._start,
    ev.LeaseGranted: Book._lease_granted,
    ev.LeaseAnswered: Book._lease_answered,
    ev.LeaseDenied: Book._answer_call,
    ev.Reclaim: Book._reclaim,
    ev.LeaseEnded: Book._lease_ended,
    ev.Moved: Book._moved,
}
