"""The true model servers: processes that start, load, sleep, crash, linger, and the drivers that act on them.

Owns each model's process tree and what its operations really do; every operation follows the model's next habit
and answers through `tell`, once, twice, late or never. Knows nothing of the scheduler's state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from imageworks.runtime import events as ev
from imageworks.runtime.residency import Spec
from imageworks.simulation.agenda import Agenda
from imageworks.simulation.cards import Cards
from imageworks.simulation.scenario import Habit

OK = Habit("ok", 0.5, 1.0)
Tell = Callable[[ev.Event], None]


class Program:
    """One model's process tree. `generation` counts its starts; `phase` is down, starting, ready, asleep or dying."""

    __slots__ = ("generation", "operation", "phase", "spec", "tell")

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.phase = "down"
        self.generation = self.operation = 0
        self.tell: Tell | None = None


class Programs:
    """All process trees. `calm` ends all bad habits."""

    __slots__ = ("_agenda", "_cards", "_habits", "_turns", "calm", "of", "on_death", "share")

    def __init__(
        self,
        agenda: Agenda,
        cards: Cards,
        specs: Mapping[str, Spec],
        habits: Mapping[tuple[str, str], tuple[Habit, ...]],
    ) -> None:
        self._agenda, self._cards, self._habits = agenda, cards, habits
        self._turns: dict[tuple[str, str], int] = {}
        self.of = {name: Program(spec) for name, spec in specs.items()}
        self.share = {name: (0.97, 0.9, 1.0)[number % 3] for number, name in enumerate(specs)}
        self.calm = False
        self.on_death: Callable[[str, int], None] = lambda _model, _generation: None
        for program in self.of.values():
            if not program.spec.managed:
                self._fill(program, program.spec.gpu_mib, 1.0)
                program.phase = "ready"

    def habit(self, who: str, operation: str) -> Habit:
        """What the next operation of that kind does."""
        if self.calm or (who, operation) not in self._habits:
            return OK
        turn = self._turns.get((who, operation), 0)
        self._turns[who, operation] = turn + 1
        habits = self._habits[who, operation]
        return habits[turn % len(habits)]

    def observed(self) -> dict[str, str]:
        """What a look at the machine finds alive: model -> starting, ready or asleep."""
        return {
            name: "starting" if program.phase == "dying" else program.phase
            for name, program in self.of.items()
            if program.phase != "down" and program.spec.managed
        }

    # operations

    def start(self, model: str, tell: Tell) -> None:
        """Start the process tree."""
        program = self.of[model]
        if program.phase == "dying":  # process control begins when the old tree is gone
            self._agenda.after(0.5, self._start_later, program, tell, program.operation)
            return
        program.operation += 1
        program.tell = tell
        if program.phase != "down":  # already started: nothing new is begun
            self._agenda.after(0.5, self._answer_started, program, program.generation)
            return
        self._cards.strand(model)  # what an earlier life left, where nobody could look for it, is none of this one's
        habit = self.habit(model, "start")
        program.phase, program.tell = "starting", tell
        program.generation += 1
        generation = program.generation
        self._agenda.after(
            habit.took_s / 2, self._allocate, program, generation, 1.25 if habit.outcome == "overuse" else 1.0
        )
        if habit.outcome == "late":
            self._agenda.after(30.0 + habit.then_s, self._up, program, generation, habit)
        elif habit.outcome in ("fail", "again", "exit"):
            self._agenda.after(habit.took_s, self._fail, program, generation, habit)
        elif habit.outcome != "hang":
            self._agenda.after(habit.took_s, self._up, program, generation, habit)

    def _start_later(self, program: Program, tell: Tell, operation: int) -> None:
        if program.operation == operation:
            self.start(program.spec.id, tell)

    def _answer_started(self, program: Program, generation: int) -> None:
        if program.generation == generation and program.phase == "ready":
            self._tell(program, ev.Ready(program.spec.id), OK)

    def _allocate(self, program: Program, generation: int, share: float) -> None:
        if program.generation == generation and program.phase == "starting":
            self._fill(program, program.spec.gpu_mib, share)

    def _fill(self, program: Program, mib: Mapping[int, int], share: float) -> None:
        if share > 1:
            self._cards.touched.update(mib)
        share = share if share > 1 else self.share[program.spec.id]
        self._cards.hold(program.spec.id, {slot: int(amount * share) for slot, amount in mib.items()})

    def _up(self, program: Program, generation: int, habit: Habit) -> None:
        if program.generation != generation or program.phase != "starting":
            return
        program.phase = "ready"
        self._tell(program, ev.Ready(program.spec.id), habit)
        if habit.outcome == "die":
            self._agenda.after(habit.then_s, self._die, program, generation)

    def _fail(self, program: Program, generation: int, habit: Habit) -> None:
        if program.generation == generation and program.phase == "starting":
            self._gone(program)
            self._tell(program, ev.StartFailed(program.spec.id, habit.outcome, again=habit.outcome == "again"), habit)

    def stop(self, model: str, tell: Tell) -> None:
        """End the process tree."""
        program, habit = self.of[model], self.habit(model, "stop")
        program.tell = tell
        program.operation += 1
        if program.phase == "down":
            self._agenda.after(0.05, self._tell, program, ev.Stopped(model), OK)
            return
        if habit.outcome not in ("hang", "stuck"):
            program.phase = "dying"
        if habit.outcome != "hang":
            self._agenda.after(habit.took_s, self._stopped, program, program.generation, program.operation, habit)

    def _stopped(self, program: Program, generation: int, operation: int, habit: Habit) -> None:
        model = program.spec.id
        if habit.outcome == "stuck":
            if program.operation == operation:
                self._tell(program, ev.StopFailed(model, "does not end", (program.generation,)), habit)
            return
        if program.generation == generation and program.phase == "dying":
            kept = {"orphan": 0.4, "slow_bytes": 1.0}.get(habit.outcome, 0.0)
            self._gone(program, kept)
            if kept:
                self._agenda.after(habit.then_s, self._cards.give_back, model)
        if program.operation == operation:
            self._tell(program, ev.Stopped(model), habit)

    def sleep(self, model: str, tell: Tell) -> None:
        """Put a ready model to sleep."""
        program, habit = self.of[model], self.habit(model, "sleep")
        program.tell = tell
        if habit.outcome != "hang":
            self._agenda.after(habit.took_s, self._slept, program, program.generation, habit)

    def _slept(self, program: Program, generation: int, habit: Habit) -> None:
        if program.generation != generation or program.phase != "ready":
            return
        if habit.outcome == "fail":
            self._tell(program, ev.SleepFailed(program.spec.id, "bytes did not come back"), habit)
            return
        program.phase = "asleep"
        self._fill(program, program.spec.asleep_mib, 1.0)
        self._tell(program, ev.Slept(program.spec.id), habit)

    def wake(self, model: str, tell: Tell) -> None:
        """Wake a sleeping model."""
        program, habit = self.of[model], self.habit(model, "wake")
        program.tell = tell
        if habit.outcome != "hang":
            self._agenda.after(habit.took_s, self._woken, program, program.generation, habit)

    def _woken(self, program: Program, generation: int, habit: Habit) -> None:
        if program.generation != generation or program.phase != "asleep":
            return
        if habit.outcome == "fail":
            self._tell(program, ev.WakeFailed(program.spec.id, "wrong token"), habit)
            return
        program.phase = "ready"
        self._fill(program, program.spec.gpu_mib, 1.0)
        self._tell(program, ev.Ready(program.spec.id), habit)

    # what happens by itself

    def crash(self, model: str) -> None:
        """The process tree ends by itself, with any exit code."""
        program = self.of[model]
        if program.phase in ("starting", "ready", "asleep") and program.spec.managed:
            self._die(program, program.generation)

    def _die(self, program: Program, generation: int) -> None:
        if program.generation != generation or program.phase not in ("starting", "ready", "asleep"):
            return
        starting = program.phase == "starting"
        self._gone(program)
        if starting:
            self._tell(program, ev.StartFailed(program.spec.id, "exit 0"), OK)
        else:
            self.on_death(program.spec.id, generation)

    def _gone(self, program: Program, kept: float = 0.0) -> None:
        program.phase = "down"
        self._cards.let_go(program.spec.id, kept)

    def _tell(self, program: Program, event: ev.Event, habit: Habit) -> None:
        tell = program.tell
        if tell is not None:
            tell(event)
            if habit.outcome == "twice":
                self._agenda.after(habit.then_s, tell, event)
