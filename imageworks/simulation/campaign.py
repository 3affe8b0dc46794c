"""Many schedules, one after the other, and what came of them.

Owns the running of one seed and of a range of seeds on one core. Every `AGAIN`-th schedule is played twice: the two runs
must be the same. Starts no processes and reads no clock: who calls it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from imageworks.simulation.book import Violation
from imageworks.simulation.core import Core, Real
from imageworks.simulation.scenario import Scenario, draw
from imageworks.simulation.shell import Shell
from imageworks.simulation.store import Store
from imageworks.simulation.world import World

AGAIN = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """One schedule's end. `steps` are events given to the scheduler."""

    seed: int
    steps: int
    violation: Violation | None


@dataclass(frozen=True, slots=True)
class Totals:
    """A range of schedules. `failures` are those in which an invariant did not hold."""

    schedules: int
    steps: int
    failures: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a world is made of; the real things, unless a bug is planted. `only` limits the invariants to one number."""

    core: Core = field(default_factory=Real)
    manager: type[Shell] = Shell
    store: type[Store] = Store
    only: int | None = None


def play(scenario: Scenario, steps: int, parts: Parts | None = None) -> World:
    """Play one schedule in a fresh world."""
    parts = parts or Parts()
    world = World(scenario, parts.core, parts.manager, parts.store, parts.only)
    world.run(steps)
    return world


def run_seed(seed: int, steps: int) -> Outcome:
    """Draw and play the schedule of a seed."""
    scenario = draw(seed, steps)
    world = play(scenario, steps)
    done = world.steps
    if seed % AGAIN == 0 and not world.book.violations:
        other = play(scenario, steps)
        done += other.steps
        world.book.compare(other.book)
    return Outcome(seed, done, world.book.violations[0] if world.book.violations else None)


def run(seeds: Iterable[int], steps: int, stop: Callable[[Totals], bool] | None = None) -> Totals:
    """Play the schedules of `seeds`; `stop` is asked after each whether that is enough."""
    totals = Totals(0, 0, ())
    for seed in seeds:
        outcome = run_seed(seed, steps)
        failures = (*totals.failures, outcome) if outcome.violation else totals.failures
        totals = replace(totals, schedules=totals.schedules + 1, steps=totals.steps + outcome.steps, failures=failures)
        if stop is not None and stop(totals):
            break
    return totals
