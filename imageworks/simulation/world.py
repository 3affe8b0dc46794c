"""One simulated world: cards, programs, clients, the store and the manager's lives, under one virtual clock.

Owns the acts of a schedule (what happens from outside) and the end of a run: after the last act all faults stop,
everybody goes home, and each model gets one more request: whoever is still stuck then was stuck for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from imageworks.runtime import events as ev
from imageworks.simulation.agenda import Agenda
from imageworks.simulation.callers import Callers
from imageworks.simulation.cards import FOREIGN, Cards
from imageworks.simulation.core import Core
from imageworks.simulation.judge import Judge
from imageworks.simulation.programs import Programs
from imageworks.simulation.scenario import RESERVE_MIB, Act, Scenario
from imageworks.simulation.shell import Shell
from imageworks.simulation.stage import Manager, Stage
from imageworks.simulation.store import Store
from imageworks.simulation.tenants import Tenants

BIRTH_S = 1_700_000_000.0
DAY_S = 86_400.0
END_QUIET_S, END_WAIT_S = 40.0, 300.0
LONGEST_S = 3_600.0
"""After the last act: a program that never stops keeps a manager busy for ever, without one event for the scheduler."""
LAST_STEPS = 1_000
"""So many steps after the last act must be enough for everything to come to rest."""


class World(Stage):
    """Everything of one run. `shell` is the manager's life now; `steps` counts events given to the scheduler."""

    def __init__(
        self,
        scenario: Scenario,
        core: Core,
        manager: type[Shell] = Shell,
        store: type[Store] = Store,
        only: int | None = None,
    ) -> None:
        self.scenario, self.core, self._life = scenario, core, manager
        self.machine = scenario.machine
        self.names = tuple(scenario.machine.specs)
        self.agenda = Agenda()
        self.store = store()
        totals = {slot: mib + RESERVE_MIB for slot, mib in self.machine.gpu_budget_mib.items()}
        self.cards = Cards(totals, self.machine.uuids, blind=scenario.blind)
        self.programs = Programs(self.agenda, self.cards, self.machine.specs, scenario.habits)
        self.programs.on_death = self._died
        self.callers, self.tenants = Callers(self), Tenants(self)
        self.book = Judge(scenario, core, self.agenda, self.store, self.cards, self.programs, only=only)
        self.steps = self.lives = 0
        self.shell: Shell | None = None
        self.wall_offset = BIRTH_S

    def wall(self) -> float:
        """What the wall clock says, in seconds."""
        return self.agenda.now + self.wall_offset

    def disk_freed(self) -> None:
        """There is room on the disk again."""
        self.store.full = False

    def manager(self) -> Manager | None:
        """The manager, if one lives."""
        return self.shell if self.shell is not None and self.shell.alive else None

    def requests(self) -> Callers:
        """The clients that send requests."""
        return self.callers

    def holders(self) -> Tenants:
        """The clients that hold leases."""
        return self.tenants

    # lives of the manager

    def boot(self) -> None:
        """Begin a life of the manager; a second one beside a living one ends at once."""
        self.lives += 1
        if not self.store.lock(self.lives):
            return
        self.shell = self._life(self, self.lives)
        self.book.managers += 1
        self.shell.boot()

    def kill(self) -> None:
        """Kill -9 of the manager; its supervisor starts it again."""
        if self.shell is not None and self.shell.alive:
            self.shell.kill()
            self.book.managers -= 1
            self.callers.forget()
            for name in self.programs.of:  # the next manager does not wait for them; leases it remembers
                self.cards.strand(name)
            self.agenda.after(0.5, self._boot_again)

    def _boot_again(self) -> None:
        if self.shell is None or not self.shell.alive:
            self.boot()

    def _died(self, model: str, generation: int) -> None:
        self.agenda.after(0.5, self._notice, model, generation)

    def _notice(self, model: str, generation: int) -> None:
        if self.shell is not None and self.shell.alive:
            self.shell.died(model, generation)

    def say(self, event: ev.Event) -> None:
        """Tell the manager, if one lives."""
        if self.shell is not None and self.shell.alive:
            self.shell.say(event)

    # one run

    def run(self, steps: int) -> None:
        """Play the schedule up to `steps` steps, then let everything come to rest; stops at the first violation."""
        self._next_act(0)
        self.boot()
        book, agenda, acts = self.book, self.agenda, self.scenario.acts
        late = (acts[-1].at if acts else 0.0) + LONGEST_S
        while self.steps < steps and agenda.now < late and not book.violations and agenda.go_on():
            pass
        if not book.violations:
            self._end()

    def _next_act(self, number: int) -> None:
        acts = self.scenario.acts
        if number < len(acts):
            self.agenda.at(acts[number].at, self._act, number)

    def _act(self, number: int) -> None:
        if not self.programs.calm:
            self._next_act(number + 1)
            act = self.scenario.acts[number]
            ACTS[act.kind](self, act)

    def _end(self) -> None:
        """No more faults, everybody goes home, and after a while every model is asked once more."""
        self.programs.calm = True
        self.store.full = False
        self.cards.gone_until = self.cards.lie_until = -1.0
        self.cards.let_go(FOREIGN)
        self.tenants.send_home()
        self.agenda.after(END_QUIET_S, self._ask_all)
        last, end = self.steps + LAST_STEPS, self.agenda.now + END_QUIET_S + END_WAIT_S + 1.0
        while self.steps < last and not self.book.violations and self.agenda.now < end and self.agenda.go_on():
            if self.book.last_asked is not None and not self.book.open_requests and not self.book.open_calls:
                break
        if not self.book.violations:
            self.book.ended()

    def _ask_all(self) -> None:
        self.callers.patience = END_WAIT_S
        self.book.last_asked = self.agenda.now
        for name in self.names:
            self.callers.ask((name,), Act(0.0, "request", 0, 0.1, "ok", 0.0))


# what happens from outside


def _crash(world: World, act: Act) -> None:
    world.programs.crash(world.names[act.pick % len(world.names)])


def _kill(world: World, act: Act) -> None:
    if world.shell is not None and world.shell.alive and act.pick % 3:
        world.shell.doom = act.pick % 4  # it dies between two effects
    else:
        world.kill()


def _slot(world: World, act: Act) -> int:
    return act.pick % len(world.cards.totals)


def _nvml_gone(world: World, act: Act) -> None:
    world.cards.gone_until = world.agenda.now + act.span


def _nvml_lie(world: World, act: Act) -> None:
    world.cards.lie_until = world.agenda.now + act.span
    world.cards.touched.update(world.cards.totals)


def _gpu_lost(world: World, act: Act) -> None:
    slot = _slot(world, act)
    world.cards.lost.add(slot)
    world.cards.touched.add(slot)
    for name, program in world.programs.of.items():
        if slot in program.spec.gpu_mib:
            world.programs.crash(name)
    world.tenants.lose(slot)
    world.cards.held[slot].clear()
    world.cards.tails[slot].clear()


def _foreign(world: World, act: Act) -> None:
    slot = _slot(world, act)
    world.cards.touched.add(slot)
    free = world.cards.totals[slot] - world.cards.used(slot)
    if free > 0 and slot not in world.cards.lost:
        world.cards.hold(FOREIGN, {slot: int(free * act.size)})
        world.agenda.after(act.span * 2, world.cards.let_go, FOREIGN)


def _pause(world: World, act: Act) -> None:
    if world.shell is not None and world.shell.alive and world.shell.paused_until < world.agenda.now:
        world.shell.pause(act.span)
        world.agenda.after(act.span, _resume, world, world.shell, act.span)


def _resume(world: World, shell: Shell, span_s: float) -> None:
    if shell.alive:
        world.book.paused_s += span_s
        shell.resume(span_s)


def _suspend(world: World, act: Act) -> None:
    world.wall_offset += act.span * 100


def _wall_clock(world: World, act: Act) -> None:
    world.wall_offset += DAY_S * (1 if act.pick % 2 else -1)


def _reload(world: World, act: Act) -> None:
    whole = world.scenario.machine
    gone = tuple(whole.specs)[act.pick % len(whole.specs)] if act.pick % 2 else None
    specs = {name: spec for name, spec in whole.specs.items() if name != gone}
    if specs and world.shell is not None and world.shell.alive:
        world.machine, world.names = replace(whole, specs=specs), tuple(specs)
        world.say(ev.Reload(world.machine))


def _unload(world: World, act: Act) -> None:
    world.say(ev.Unload(world.names[act.pick % len(world.names)]))


def _force(world: World, act: Act) -> None:
    leases = sorted(world.book.leases)
    if leases:
        world.say(ev.ForceRelease(f"f{world.steps}", leases[act.pick % len(leases)], "operator"))


def _pardon(world: World, act: Act) -> None:
    held = sorted(world.book.quarantined()) or [world.names[act.pick % len(world.names)]]
    holder = held[act.pick % len(held)]
    world.cards.touched.update(_still_used(world, holder))
    world.say(ev.Pardon(holder, "operator"))


def _still_used(world: World, holder: str) -> set[int]:
    """Slots where processes of what is pardoned live: the operator says what is not so, and nobody can make room there.

    Also where only bytes are left and pids tell nothing: they are a stranger's from now, as in `Cards.strand`.
    """
    held = world.book.leases.get(holder)
    if held is None and world.book.models.get(holder) != "quarantined":
        return set()
    key = holder if held is None else held.lease.ask.request
    cards = world.cards
    return {slot for slot in cards.totals if key in cards.held[slot] or (cards.blind and key in cards.tails[slot])}


def _disk_full(world: World, act: Act) -> None:
    world.store.full = True
    world.agenda.after(act.span, world.disk_freed)


def _corrupt(world: World, _act: Act) -> None:
    world.store.corrupt = True
    world.kill()


def _second_manager(world: World, _act: Act) -> None:
    world.boot()


def _drain(world: World, _act: Act) -> None:
    world.say(ev.Drain())
    world.agenda.after(2.0, world.kill)


def _reshuffle(world: World, _act: Act) -> None:
    world.cards.order.reverse()
    world.kill()


ACTS: Mapping[str, Callable[[World, Act], None]] = {
    "request": lambda world, act: world.callers.arrive(act),
    "lease": lambda world, act: world.tenants.acquire(act),
    "crash": _crash,
    "kill": _kill,
    "nvml_gone": _nvml_gone,
    "nvml_lie": _nvml_lie,
    "gpu_lost": _gpu_lost,
    "foreign": _foreign,
    "pause": _pause,
    "suspend": _suspend,
    "wall_clock": _wall_clock,
    "reload": _reload,
    "unload": _unload,
    "force": _force,
    "pardon": _pardon,
    "disk_full": _disk_full,
    "corrupt": _corrupt,
    "second_manager": _second_manager,
    "drain": _drain,
    "reshuffle": _reshuffle,
}
