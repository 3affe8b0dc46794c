"""A trace played on a machine under virtual time, with the very scheduler or a rival; and what came of it.

Owns the loop: arrivals, services, loads and unloads with fixed durations, and the figures. Nothing fails here; the
queue takes every job, so that all policies serve the same work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from imageworks.runtime import events as ev
from imageworks.runtime import scheduler
from imageworks.runtime.residency import Machine
from imageworks.simulation.agenda import Agenda
from imageworks.simulation.rivals import Fifo, Lru
from imageworks.simulation.trace import Job

STOP_S = 1.0
PATIENCE_S = 1e9


class Policy(Protocol):
    """What a replay needs of a scheduler."""

    def initial(self, machine: Machine) -> Any:
        """The state before anything is known."""

    def step(self, state: Any, event: ev.Event, now: float) -> tuple[Any, tuple[ev.Effect, ...]]:
        """Apply one event."""

    def next_deadline(self, state: Any, now: float) -> float | None:
        """When a Tick is due."""


class Ours:
    """The scheduler of the runtime."""

    initial = staticmethod(scheduler.initial)
    step = staticmethod(scheduler.step)
    next_deadline = staticmethod(scheduler.next_deadline)


POLICIES: Mapping[str, Policy] = {"ours": Ours(), "lru": Lru(), "fifo": Fifo()}


@dataclass(frozen=True, slots=True)
class Report:
    """What a policy made of a trace.

    Waits are seconds from arrival to grant; `most_late` is by how many places somebody was served after their turn (their
    place in the order of arrival), `gpu_idle` the share of time in which no job was served.
    """

    policy: str
    jobs: int
    refused: int
    loads: int
    wait_p50_s: float
    wait_p95_s: float
    wait_max_s: float
    most_late: int
    gpu_idle: float
    makespan_s: float


class _Run:
    def __init__(self, machine: Machine, policy: Policy, jobs: Sequence[Job], load_s: Mapping[str, float]) -> None:
        self.policy, self.jobs, self.load_s = policy, jobs, load_s
        self.machine = replace(machine, queue=max(machine.queue, len(jobs)))
        self.agenda = Agenda()
        self.state = policy.initial(self.machine)
        self.tick: float | None = None
        self.loads = self.refused = self.busy = self.most_late = 0
        self.busy_s = self.busy_since = self.end = 0.0
        self.waits: list[float] = []
        self.waiting: set[int] = set()

    def play(self) -> None:
        self.say(ev.Adopt({}))
        for number, job in enumerate(self.jobs):
            self.agenda.at(job.at, self.arrive, number)
        while len(self.waits) + self.refused < len(self.jobs) or self.busy:
            if not self.agenda.go_on():
                raise RuntimeError(f"{len(self.waiting)} jobs wait for ever")

    def arrive(self, number: int) -> None:
        self.waiting.add(number)
        self.say(ev.Arrive(str(number), self.jobs[number].models, self.agenda.now + PATIENCE_S))

    def say(self, event: ev.Event) -> None:
        now = self.agenda.now
        self.state, effects = self.policy.step(self.state, event, now)
        for effect in effects:
            match effect:
                case ev.Grant(request, model):
                    self.grant(int(request))
                case ev.Refuse(request):
                    self.refused += 1
                    self.waiting.discard(int(request))
                case ev.Start(model) | ev.Wake(model):
                    self.loads += 1
                    self.agenda.after(self.load_s[model], self.say, ev.Ready(model))
                case ev.Stop(model):
                    self.agenda.after(STOP_S, self.say, ev.Stopped(model))
                case ev.Sleep(model):
                    self.agenda.after(STOP_S, self.say, ev.Slept(model))
                case _:
                    pass
        due = self.policy.next_deadline(self.state, now)
        if due is not None and due < PATIENCE_S and (self.tick is None or due < self.tick):
            self.tick = due
            self.agenda.at(due, self.wake_up, due)

    def wake_up(self, due: float) -> None:
        if self.tick == due:
            self.tick = None
            self.say(ev.Tick())

    def grant(self, number: int) -> None:
        job, now = self.jobs[number], self.agenda.now
        self.waiting.discard(number)
        self.most_late = max(self.most_late, len(self.waits) - number)
        self.waits.append(now - job.at)
        if not self.busy:
            self.busy_since = now
        self.busy += 1
        self.agenda.after(job.service_s, self.finish, number)

    def finish(self, number: int) -> None:
        self.busy -= 1
        self.end = self.agenda.now
        if not self.busy:
            self.busy_s += self.agenda.now - self.busy_since
        self.say(ev.Finish(str(number), ok=True))


def replay(machine: Machine, policy: str, jobs: Sequence[Job], load_s: Mapping[str, float]) -> Report:
    """Play `jobs`; `load_s` is how long each model loads. Raises RuntimeError when the policy leaves jobs behind."""
    run = _Run(machine, POLICIES[policy], jobs, load_s)
    run.play()
    waits = sorted(run.waits) or [0.0]
    return Report(
        policy=policy,
        jobs=len(jobs),
        refused=run.refused,
        loads=run.loads,
        wait_p50_s=waits[len(waits) // 2],
        wait_p95_s=waits[int(len(waits) * 0.95)],
        wait_max_s=waits[-1],
        most_late=run.most_late,
        gpu_idle=1 - run.busy_s / run.end if run.end else 0.0,
        makespan_s=run.end,
    )
