"""What an outside observer of the scheduler writes down: an account of its own, made from events and effects alone.

Owns the observer's view beside `Holdings`: who waits until when, who was answered, which tokens were ever given, what the
holders and operators said. It survives the manager's restarts. It trusts neither the scheduler's state nor its readings; where an
invariant speaks of the truth, it looks at the cards and programs. It judges nothing: `invariants` do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from imageworks.runtime import events as ev
from imageworks.runtime.residency import Machine
from imageworks.simulation.agenda import Agenda
from imageworks.simulation.cards import NOISE_MIB, Cards
from imageworks.simulation.core import Core
from imageworks.simulation.holdings import Held, Holdings
from imageworks.simulation.programs import Programs
from imageworks.simulation.scenario import Scenario
from imageworks.simulation.store import Saved, Store


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that did not hold: its number, what was seen, at which step and time."""

    number: int
    text: str
    step: int
    now: float


@dataclass(slots=True)
class Open:
    """A request without its final answer.

    `stale`: it showed a token that is worth nothing. `ahead` waited when it came, `passed` counts younger ones that went first.
    """

    subject: str
    models: tuple[str, ...]
    deadline: float
    since: float  # by true time
    number: int
    ahead: int
    stale: bool = False
    passed: int = 0


class Book(Holdings):
    """The observer's account of one run, over all lives of the manager."""

    def __init__(  # noqa: PLR0917 - a world's parts, in the order in which they are made
        self, scenario: Scenario, core: Core, agenda: Agenda, store: Store, cards: Cards, programs: Programs
    ) -> None:
        super().__init__(scenario, agenda, cards)
        self.core, self.store, self.programs = core, store, programs
        self.places = max(spec.concurrency for spec in scenario.machine.specs.values())
        self.violations: list[Violation] = []
        self.events = 0
        self.paused_s = 0.0
        self.event: ev.Event = ev.Tick()
        # over all lives
        self.managers = 0
        self.tokens: dict[str, int] = dict.fromkeys(self.machine.uuids.values(), 0)
        self.told: dict[str, Mapping[int, int]] = {}
        self.given_to: dict[str, Mapping[int, int]] = {}
        self.forgotten: set[str] = set()
        self.over: set[str] = set()
        self.last_asked: float | None = None
        self._fresh()

    def _fresh(self) -> None:
        """What a new life of the manager does not know."""
        self.forget_holdings()
        self.saved: Saved | None = None
        self.adopted = self.measured = False
        self.open_requests: dict[str, Open] = {}
        self.deadlines: list[tuple[float, str]] = []
        self.granted: dict[str, str] = {}
        self.inflight: Counter[str] = Counter()
        self.arrivals = 0
        self.cancelled: set[str] = set()
        self.let_go: set[str] = set()  # the holder said that it uses nothing any more
        self.told_to_end: set[str] = set()
        self.dismissed: set[str] = set()
        self.started: set[str] = set()
        self.doubled: set[str] = set()
        self.superset: set[int] = set()  # slots where more was found at the start of this life than fits
        self.unseen: set[int] = set()  # slots given away beside a stranger before the first look
        self._clear_step()

    def _clear_step(self) -> None:
        """What is known of the present step only."""
        self.forget_moves()
        self.answering: dict[str, Any] = {}
        self.unasked: set[str] = set()
        self.ending: dict[str, Held] = {}
        self.token_before: dict[str, int] = {}
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
        stale, ahead = False, len(self.open_requests) + len(self.open_calls)
        if event.lease is not None:
            held = self.leases.get(event.lease)
            stale = held is None or held.state != "active" or held.lease.token != event.token
        self.open_requests[event.request] = Open(
            event.request, event.models, event.deadline, self.agenda.now, self.arrivals, ahead, stale
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
            self.claim(lease.id, dict.fromkeys(lease.tokens, lease.ask.mib))
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
        if event.holder in self.quarantined():  # nothing else can be pardoned
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
            if all(self._held_up(wanted, model) for wanted in waiter.models):
                waiter.passed += 1
                if self.most_passed is None or waiter.passed > self.most_passed.passed:
                    self.most_passed = waiter

    def _held_up(self, wanted: str, model: str) -> bool:
        """Does only what `model` serves keep this one down? Which of its models a request waits for, it does not say."""
        return (
            (wanted, model) in self.conflicts and self.models.get(wanted, "stopped") == "stopped" and self._open(wanted)
        )

    def _open(self, model: str) -> bool:
        """Is there nothing but other requests in the model's way?"""
        for slot in self.scenario.machine.specs[model].gpu_mib:
            if slot in self.lost or (slot in self.readings and self.readings[slot][0] is None):
                return False
            others = max(self.cards.used(slot) - self.claimed[slot], self.unknown_mib(slot), self._seen_mib(slot))
            need = self.scenario.machine.specs[model].gpu_mib[slot] + self._kept_mib(slot)
            if others and others + need > self.cards.totals[slot] - NOISE_MIB:
                return False
            if any(self.models.get(holder) != "ready" for holder in self.claims[slot]):
                return False
        return True

    def _kept_mib(self, slot: int) -> int:
        """What models claim there that go for no other model: with a stranger beside them the rest may be too small."""
        specs = self.machine.specs
        return sum(
            mib
            for name, mib in self.claims[slot].items()
            if (spec := specs.get(name)) and (spec.kept or not spec.managed)
        )

    def _seen_mib(self, slot: int) -> int:
        """What others had there at the last reading: nobody knows of room that no reading has shown yet."""
        seen = self.reading(slot)
        return 0 if seen is None else max(seen.used_mib - self.claimed[slot], seen.foreign_mib or 0)

    def _start(self, effect: ev.Start | ev.Wake) -> None:
        model = effect.model
        if isinstance(effect, ev.Start):
            if model in self.started and model not in self.gone:
                self.doubled.add(model)
            self.started.add(model)
        self._give_away(self.scenario.machine.specs[model].gpu_mib)
        for known in (self.gone, self.failed_lives, self.pardoned, self.awaited):
            known.discard(model)
        if any(model in waiter.models for waiter in self.open_requests.values()):
            self.awaited.add(model)

    def _give_away(self, slots: Iterable[int]) -> None:
        """Only a reading tells of a holder that no file knows any more: no later one makes both fit."""
        self.unseen.update(slot for slot in slots if slot not in self.readings and self.unknown_mib(slot))

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
            self._give_away(lease.tokens)
            self.leases[lease.id] = Held(lease, self.now, self.awake())
            self.claim(lease.id, dict.fromkeys(lease.tokens, lease.ask.mib))

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
            self.claim(effect.lease, {})
        self.told.pop(effect.lease, None)

    def overdue(self) -> str | None:
        """A request or call that is still open after its deadline."""
        heap, limit = self.deadlines, self.now - 1e-3
        while heap and heap[0][0] < limit:
            _, subject = heappop(heap)
            if subject in self.open_requests or subject in self.open_calls:
                return subject
        return None


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
    ev.Moved: Book.move,
}
