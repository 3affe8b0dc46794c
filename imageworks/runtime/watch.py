"""Looks at the models that run, and tells the scheduler which are dead.

Owns the rhythm: every WATCH_S whether the processes are there, and at the health interval (sooner while something is
odd) whether the model is well. Judging is `runtime.health`'s, restarting the scheduler's. A look that hangs delays
nobody: each model has its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from imageworks.runtime import events as ev
from imageworks.runtime.backends.protocol import Look
from imageworks.runtime.health import Seen, Vitals, judge, patience_s, pause_s, wants_canary
from imageworks.runtime.progress import Progress
from imageworks.runtime.scheduler import State

LOG = logging.getLogger(__name__)
WATCH_S = 2.0
"""How often ready models are looked at, so that a death is noticed also without a request."""
SHORTEST_S = 0.05


class Looked(Protocol):
    """What can be looked at: a driver, or a server elsewhere."""

    async def look(self) -> Look:
        """Ask its health endpoint, once."""
        ...

    async def canary(self, timeout_s: float) -> bool | None:
        """One token; None where it cannot be asked."""
        ...


class Watched(Protocol):
    """What the watch needs of the drive."""

    @property
    def progress(self) -> Progress:
        """When each model was asked and heard."""
        ...

    @property
    def state(self) -> State:
        """The scheduler's."""
        ...

    def say(self, event: ev.Event) -> None:
        """Tell the scheduler."""
        ...

    async def report_dead(self, model: str, looks: int = ...) -> bool:
        """Is its process gone? Then the scheduler is told."""
        ...


@dataclass(slots=True)
class _Round:
    """The looks at one life of a model."""

    vitals: Vitals
    due: float
    looked: float | None = None
    task: asyncio.Task[None] | None = None


class Watch:
    """Watches the models of `managed`; those of `elsewhere` are only looked at. `interval_s` between looks at a well one."""

    def __init__(
        self,
        drive: Watched,
        managed: Mapping[str, Looked],
        elsewhere: Mapping[str, Looked],
        interval_s: float,
    ) -> None:
        self._drive, self._managed, self._interval_s = drive, managed, interval_s
        self._elsewhere = elsewhere
        self._rounds: dict[str, _Round] = {}

    def use(self, elsewhere: Mapping[str, Looked], interval_s: float) -> None:
        """Another plan: servers that are others now are looked at anew; the managed ones are a live mapping."""
        before, self._elsewhere, self._interval_s = self._elsewhere, elsewhere, interval_s
        for name, one in before.items():
            if elsewhere.get(name) is not one:
                self._forget(name)

    def _all(self) -> Mapping[str, Looked]:
        return {**self._managed, **self._elsewhere}

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                try:
                    await self.once()
                except Exception:  # a round that breaks in a way nobody thought of must not be the last one
                    LOG.exception("a round of the watch failed")
                await asyncio.sleep(max(SHORTEST_S, min(WATCH_S, self._interval_s)))
        finally:
            for name in tuple(self._rounds):
                self._forget(name)

    async def once(self) -> None:
        """One round: who is gone, also in its sleep; whose look is due."""
        slots = self._drive.state.slots
        known = {name: slot.residency for name in self._all() if (slot := slots.get(name)) is not None}
        up = {name: residency for name, residency in known.items() if residency in ("ready", "asleep")}
        for name in self._rounds.keys() - {name for name, residency in up.items() if residency == "ready"}:
            self._forget(name)
        gone = await asyncio.gather(*map(self._gone, up))
        for (name, residency), is_gone in zip(up.items(), gone, strict=True):
            if is_gone:
                self._forget(name)
            elif residency == "ready":
                self._begin(name)

    def vitals(self, model: str) -> Vitals:
        """What is known of its health; `unknown` before the first look."""
        known = self._rounds.get(model)
        return known.vitals if known else Vitals()

    def looked_s(self, model: str) -> float | None:
        """Seconds since the last look; None before the first of this life."""
        known = self._rounds.get(model)
        return None if known is None or known.looked is None else time.monotonic() - known.looked

    async def _gone(self, name: str) -> bool:
        return name in self._managed and await self._drive.report_dead(name, looks=1)

    def _begin(self, name: str) -> None:
        known = self._rounds.setdefault(name, _Round(Vitals(), time.monotonic()))
        if known.due <= time.monotonic() and (known.task is None or known.task.done()):
            known.task = asyncio.get_running_loop().create_task(self._look(name, known))

    def _forget(self, name: str) -> None:
        known = self._rounds.pop(name, None)
        if known is not None:
            self._drive.progress.forget(name)
            if known.task is not None:
                known.task.cancel()

    async def _look(self, name: str, known: _Round) -> None:
        before = known.vitals
        try:
            known.vitals = judge(before, await self._see(name, before))
        except Exception:  # the watch must outlive a look that breaks in a way nobody thought of
            LOG.exception("%s: the look at its health failed", name)
        known.looked = time.monotonic()
        known.due = known.looked + pause_s(known.vitals, self._interval_s)
        self._tell(name, before, known.vitals)

    async def _see(self, name: str, vitals: Vitals) -> Seen:
        one = self._all()[name]
        looked = await one.look()
        progress, slot = self._drive.progress, self._drive.state.slots[name]
        seen = Seen(
            answering=looked.answering,
            note=looked.note,
            inflight=slot.inflight,
            quiet_s=progress.quiet_s(name),
            unheard=progress.unheard(name),
        )
        if not wants_canary(vitals, seen):
            return seen
        found = await one.canary(patience_s(self._interval_s))
        if found:
            progress.heard(name)
        return replace(seen, canary=found)

    def _tell(self, name: str, before: Vitals, after: Vitals) -> None:
        if after.verdict != before.verdict:
            LOG.info("%s: %s%s", name, after.verdict, f": {after.reason}" if after.reason else "")
        if after.verdict == "dead" and name in self._managed and self._drive.state.slots[name].residency == "ready":
            self._drive.say(ev.Died(name, after.reason))
