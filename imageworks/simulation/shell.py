"""The manager in miniature: what the one loop of the runtime owes to the scheduler, under virtual time.

Owns the duties around the pure core: write a lease down before it is answered, say Unsaved when that fails, answer
every driver operation within its bound, drop answers of operations that are superseded and readings that began before
a tree was gone, check a grant's life before the first byte, skip time in which the loop stood still, wake for deadlines.
A life of it ends by `kill` at any step, also between two effects; the next one begins from the store and the world.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from imageworks.runtime import events as ev
from imageworks.runtime.leases import Lease
from imageworks.runtime.residency import DOWN
from imageworks.simulation.stage import Stage

EPOCH_TOKENS = 1_000
"""Tokens per second of wall time: a start without a readable state file begins above all that were ever given."""
FOLLOW_UP_S = 1e-6
SWEEP_AGAIN_S = 5.0


class Shell:
    """One life of the manager. `skipped` is time in which it stood still, taken out of the scheduler's clock."""

    patience = 1.0
    """Stretches the bounds on driver operations."""

    def __init__(self, world: Stage, number: int) -> None:
        self.world, self.number = world, number
        self.agenda, self.store, self.core = world.agenda, world.store, world.core
        self.state: Any = self.core.initial(world.machine)
        self.alive = True
        self.doom: int | None = None
        self.paused_until = -1.0
        self.skipped = 0.0
        self._inbox: deque[ev.Event] = deque()
        self._busy = False
        self._tick: float | None = None
        self._floor = 0.0
        self._operation: dict[str, int] = {}
        self._moment = 0
        self._begun: dict[str, float] = {}

    # life

    def boot(self) -> None:
        """Take over from the life before: nothing is granted until the store and the world have been looked at."""
        saved = self.store.read()
        floor = int(self.world.wall() * EPOCH_TOKENS)
        machine = self.world.machine
        tokens = {slot: max(saved.tokens.get(uuid, 0) if saved else 0, floor) for slot, uuid in machine.uuids.items()}
        leases = self._leases(saved.leases if saved else {})
        observed = self.world.programs.observed()
        for model in self.store.waking & observed.keys():  # it may be on its way up
            observed[model] = "starting" if observed[model] == "asleep" else observed[model]
        self.world.book.restarted(saved, machine)
        if self.world.scenario.measured:  # what holds memory and is not known must be seen before anything is granted
            self._sampled(self.world.cards.sample(self.agenda.now, self._ours(leases)), self._moment)
        self.say(ev.Adopt(self._known(observed), leases, tokens, saved.load_s if saved else {}))  # type: ignore[arg-type]
        for model, seen in observed.items():
            if not self.alive:
                return
            if seen == "starting" and model in machine.specs:
                self._attach(model)
        for lease in leases:
            if lease.ask.holder is not None and not self.world.holders().breathes(lease.id):
                self.say(ev.HolderGone(lease.id))
        if self.world.scenario.measured:
            self.sample()

    def _known(self, observed: Mapping[str, str]) -> dict[str, str]:
        """What runs and is in the plan; the rest is swept."""
        for model in sorted(observed.keys() - self.world.machine.specs.keys()):
            self._sweep(model)
        return {model: seen for model, seen in observed.items() if model in self.world.machine.specs}

    def _sweep(self, model: str) -> None:
        """End what ran and was not in the plan, until it is gone, or the scheduler has it in hand again."""
        program, slot = self.world.programs.of[model], self.state.slots.get(model)
        if self.alive and program.phase != "down" and (slot is None or slot.residency in DOWN):
            self.world.programs.stop(model, self._ignore)
            self.agenda.after(SWEEP_AGAIN_S, self._sweep, model)

    def _leases(self, saved: Mapping[str, Lease]) -> tuple[Lease, ...]:
        return tuple(saved.values())

    def kill(self) -> None:
        """Kill -9: nothing of this life acts any more, and nothing is said to it."""
        self.alive = False
        self._inbox.clear()
        if self.store.locked_by == self.number:
            self.store.locked_by = None
        for program in self.world.programs.of.values():
            program.tell = None

    def pause(self, span_s: float) -> None:
        """SIGSTOP for a while: everything waits, and the loop notices afterwards how long it stood still."""
        self.paused_until = self.agenda.now + span_s

    # the loop

    def clock(self) -> float:
        """The scheduler's time."""
        return max(self.agenda.now - self.skipped, self._floor)

    def say(self, event: ev.Event) -> None:
        """Tell the scheduler, and perform what it asks for; in order, one at a time."""
        if not self.alive:
            return
        if self.paused_until > self.agenda.now:
            self.agenda.at(self.paused_until + FOLLOW_UP_S, self.say, event)
            return
        self._inbox.append(event)
        if not self._busy:
            self._busy = True
            while self._inbox:
                self._step(self._inbox.popleft())
            self._busy = False
            self._arm()

    def resume(self, span_s: float) -> None:
        """SIGCONT: the lag is noticed and taken out, so that nobody loses what could not be renewed meanwhile."""
        if self.alive:
            self.paused_until = -1.0
            self.skipped += span_s
            self._tick = None
            self._arm()

    def _step(self, event: ev.Event) -> None:
        now = self.clock()
        world = self.world
        self.state, effects = self.core.step(self.state, event, now)
        if isinstance(event, (ev.Stopped, ev.Reclaimed, ev.Ready)):
            self._moment += 1
        world.steps += 1
        world.book.see(event, effects, self.state, now)
        for effect in effects:
            if self.doom is not None:
                self.doom -= 1
                if self.doom < 0:
                    world.kill()
                    return
            perform = PERFORM.get(type(effect))
            if perform is not None:
                perform(self, effect)
                if not self.alive:
                    return

    def _arm(self) -> None:
        if not self.alive:
            return
        due = self.core.next_deadline(self.state, self.clock())
        if due is not None and (self._tick is None or due < self._tick):
            self._tick = due
            self.agenda.after(max(due - self.clock(), FOLLOW_UP_S), self._wake_up, due)

    def _wake_up(self, due: float) -> None:
        if self.alive and self.paused_until > self.agenda.now:
            self.agenda.at(self.paused_until + FOLLOW_UP_S, self._wake_up, due)
        elif self.alive and self._tick == due:
            self._tick = None
            if self.clock() < due - FOLLOW_UP_S:  # time was skipped meanwhile
                self._arm()
            else:
                self._floor = max(self._floor, due)  # rounding must not make it a moment too early
                self.say(ev.Tick())

    # drivers

    def _drive(self, effect: Any) -> None:
        model = effect.model
        programs = self.world.programs
        number = self._operation[model] = self._operation.get(model, 0) + 1
        tell = Answer(self, model, number, EXPECTED[type(effect)])
        bound, failed = self.world.scenario.stop_timeout_s, TIMED_OUT[type(effect)]
        if isinstance(effect, ev.Start):
            self._save_tokens(model, effect.tokens)
            self._begun[model] = self.agenda.now
            bound = self.world.scenario.start_timeout_s
            programs.start(model, tell)
        elif isinstance(effect, ev.Stop):
            programs.stop(model, tell)
        elif isinstance(effect, ev.Sleep):
            programs.sleep(model, tell)
        elif self.store.intend(model):
            self._save_tokens(model, effect.tokens)
            programs.wake(model, tell)
        else:
            self.say(ev.WakeFailed(model, "it could not be written down"))
        self.agenda.after(bound * self.patience, tell.late, failed(model, "no answer in time"))

    def _attach(self, model: str) -> None:
        """A start is under way from the life before: wait for how it ends, within its bound."""
        number = self._operation[model] = self._operation.get(model, 0) + 1
        tell = Answer(self, model, number, EXPECTED[ev.Start])
        self.world.programs.of[model].tell = tell
        self.agenda.after(self.world.scenario.start_timeout_s, tell.late, ev.StartFailed(model, "no answer in time"))

    def answered(self, model: str, number: int, event: ev.Event) -> None:
        """An operation ended. Answers of superseded ones count for nothing."""
        if self.alive and self._operation.get(model) == number:
            if isinstance(event, ev.Ready) and model in self._begun and not self.store.full:
                self.store.load_s[model] = self.agenda.now - self._begun.pop(model)
            if isinstance(event, (ev.Ready, ev.Stopped)):
                self.store.waking.discard(model)
            self.say(event)

    def died(self, model: str, generation: int) -> None:
        """The watch found a process gone; it is looked at again before it is believed."""
        program = self.world.programs.of[model]
        if (
            self.alive
            and model in self.world.machine.specs
            and program.generation == generation
            and program.phase == "down"
        ):
            self.say(ev.Died(model, "process ended"))

    @staticmethod
    def _ignore(_event: ev.Event) -> None:
        """Nobody waits for this."""

    # memory

    def sample(self) -> None:
        """Look at the GPUs now and then; what began before a tree was gone, or one was up, tells nothing about its bytes."""
        if self.alive:
            readings = self.world.cards.sample(self.agenda.now, self._ours(self.state.leases.values()))
            self.agenda.after(0.02, self._sampled, readings, self._moment)
            self.agenda.after(5.0 if self.world.programs.calm else self.world.scenario.sample_s, self.sample)

    def _ours(self, leases: Iterable[Lease]) -> set[str]:
        """Whose processes are known: every program's, and those of living leases; a lost state file makes strangers."""
        return {*self.world.programs.of, *(lease.ask.request for lease in leases)}

    def _sampled(self, readings: Mapping[str, ev.Reading | None], moment: int) -> None:
        if self.alive and self.fresh(moment):
            slots = self.by_slot(readings)
            lost = tuple(sorted(self.world.cards.lost))
            self.say(ev.Measured(slots, lost))

    def fresh(self, moment: int) -> bool:
        """Did the look begin after the last tree was gone or up?"""
        return moment == self._moment

    def by_slot(self, readings: Mapping[str, ev.Reading | None]) -> dict[int, ev.Reading | None]:
        """Cards are found by UUID: their order may be another one since the last boot."""
        return {slot: readings.get(uuid) for slot, uuid in self.world.machine.uuids.items()}

    def _save_tokens(self, model: str, tokens: Mapping[int, int]) -> None:
        uuids = self.world.machine.uuids
        self.store.save_tokens({uuids[slot]: token for slot, token in tokens.items()})
        self.world.book.given(model, tokens)

    # clients

    def _grant(self, effect: ev.Grant) -> None:
        self.world.requests().granted(effect)

    def may_forward(self, request: str, model: str, life: int) -> bool:
        """Just before the first byte goes to the model: is it still the one that was granted?"""
        slot = self.state.slots.get(model)
        return request in self.state.granted and slot is not None and slot.life == life

    def _refuse(self, effect: ev.Refuse) -> None:
        self.world.requests().refused(effect)

    def _lease_granted(self, effect: ev.LeaseGranted) -> None:
        if self.persist(effect.lease):
            self.world.book.tell(effect.lease)
            self.world.holders().granted(effect.call, effect.lease)
        else:
            self.say(ev.Unsaved(effect.lease.id))
            self.world.holders().denied(effect.call, "state_unwritable")

    def persist(self, lease: Lease) -> bool:
        """Write a lease down; False when that cannot be done."""
        return self.store.save(lease)

    def _lease_answered(self, effect: ev.LeaseAnswered) -> None:
        lease, book = effect.lease, self.world.book
        if lease.state == "active":
            saved = self.persist(lease)
            if not saved and book.told.get(lease.id) != lease.tokens:  # new tokens that nobody would remember
                self.say(ev.Unsaved(lease.id))
                self.world.holders().denied(effect.call, "state_unwritable")
                return
            book.tell(lease)
        self.world.holders().answered(effect.call, lease)

    def _lease_denied(self, effect: ev.LeaseDenied) -> None:
        self.world.holders().denied(effect.call, effect.code)

    def _lease_ended(self, effect: ev.LeaseEnded) -> None:
        self._forget(effect.lease)

    def _forget(self, lease: str) -> None:
        if not self.alive:
            return
        if self.store.forget(lease):
            self.world.book.forgotten.add(lease)
        else:
            self.agenda.after(1.0, self._forget, lease)

    def _reclaim(self, effect: ev.Reclaim) -> None:
        lease = effect.lease
        number = self._operation[lease] = self._operation.get(lease, 0) + 1
        tell = Answer(self, lease, number, EXPECTED[ev.Reclaim])
        self.world.holders().reclaim(lease, tell)
        self.agenda.after(self.world.scenario.stop_timeout_s, tell.late, ev.ReclaimFailed(lease, "no answer in time"))


class Answer:
    """Where one operation's answers go; `late` is what the bound says, unless an answer came."""

    __slots__ = ("_came", "_expected", "_number", "_shell", "_subject")

    def __init__(self, shell: Shell, subject: str, number: int, expected: tuple[type[Any], ...]) -> None:
        self._shell, self._subject, self._number, self._expected = shell, subject, number, expected
        self._came = False

    def __call__(self, event: Any) -> None:
        """An answer came."""
        if isinstance(event, ev.Stopped) and ev.StartFailed in self._expected:
            event = ev.StartFailed(event.model, "it ended")  # seen starting at boot, and it was on its way down
        if isinstance(event, self._expected):
            self._came = True
            self._shell.answered(self._subject, self._number, event)

    def late(self, event: Any) -> None:
        """The bound is over."""
        if not self._came:
            self(event)


EXPECTED: Mapping[type[Any], tuple[type[Any], ...]] = {
    ev.Start: (ev.Ready, ev.StartFailed),
    ev.Stop: (ev.Stopped, ev.StopFailed),
    ev.Sleep: (ev.Slept, ev.SleepFailed),
    ev.Wake: (ev.Ready, ev.WakeFailed),
    ev.Reclaim: (ev.Reclaimed, ev.ReclaimFailed),
}
TIMED_OUT: Mapping[type[Any], Any] = {
    ev.Start: ev.StartFailed, ev.Stop: ev.StopFailed, ev.Sleep: ev.SleepFailed, ev.Wake: ev.WakeFailed,
}  # fmt: skip
PERFORM: Mapping[type[Any], Callable[[Shell, Any], None]] = {
    ev.Start: Shell._drive,
    ev.Stop: Shell._drive,
    ev.Sleep: Shell._drive,
    ev.Wake: Shell._drive,
    ev.Grant: Shell._grant,
    ev.Refuse: Shell._refuse,
    ev.LeaseGranted: Shell._lease_granted,
    ev.LeaseAnswered: Shell._lease_answered,
    ev.LeaseDenied: Shell._lease_denied,
    ev.LeaseEnded: Shell._lease_ended,
    ev.Reclaim: Shell._reclaim,
}
