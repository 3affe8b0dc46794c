"""The one loop between the scheduler and the world.

Owns the current state, performs effects with the drivers, feeds back what happened, and wakes when time alone
changes something. Decides nothing. Lives in one event loop and is called from it only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress

from imageworks.contract import RouteTable
from imageworks.runtime import events as ev
from imageworks.runtime.backends.logs import error_line
from imageworks.runtime.backends.probe import bring_up, observe
from imageworks.runtime.backends.protocol import Driver, DriverError, StartError
from imageworks.runtime.errors import refusal
from imageworks.runtime.residency import machine
from imageworks.runtime.scheduler import State, initial, next_deadline, step

LOG = logging.getLogger(__name__)
WATCH_S = 2.0
"""How often ready models are looked at, so that a death is noticed also without a request."""
LOOK_AGAIN_S, LOOKS = 0.05, 20
"""Process control needs a moment to notice that a killed process is gone."""


class Drive:
    """Scheduler, drivers and clock together. `state` is the scheduler's, to be read."""

    def __init__(
        self, table: RouteTable, drivers: Mapping[str, Driver], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.table, self._drivers, self._clock = table, drivers, clock
        self.state: State = initial(machine(table))
        self._answers: dict[str, asyncio.Future[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Look at what runs already; nothing is granted before."""
        observed = {}
        for name, driver in self._drivers.items():
            with suppress(DriverError):  # what does not answer is not there; a start will say why
                if seen := await observe(driver):
                    observed[name] = seen
        LOG.info("running already: %s", observed or "nothing")
        self.say(ev.Adopt(observed))
        for name, seen in observed.items():
            if seen == "starting":
                self._spawn(self._start(name))
        self._spawn(self._watch())

    async def close(self) -> None:
        """Stop watching and waiting; models stay as they are."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def acquire(self, request: str, models: tuple[str, ...], deadline: float) -> str:
        """Wait for one of `models`; returns which. Raises ApiError; cancelling leaves the queue or gives back."""
        answer = self._answers[request] = asyncio.get_running_loop().create_future()
        try:
            self.say(ev.Arrive(request, models, deadline))
            return str(await answer)
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled():
                answer.exception()  # nobody will ask for it any more
            self.say(ev.Cancel(request))
            raise
        finally:
            del self._answers[request]

    async def report_dead(self, model: str, looks: int = LOOKS) -> bool:
        """Is the model's process really gone? Then the scheduler is told, and True returned."""
        for look in range(looks if model in self._drivers else 0):
            if look:
                await asyncio.sleep(LOOK_AGAIN_S)
            with suppress(DriverError):
                status = await self._drivers[model].status()
                if self.state.slots[model].residency != "ready":
                    return True
                if not status.alive:
                    reason = error_line(self._drivers[model].log()) or f"its process ended by itself ({status.note})"
                    LOG.warning("%s: died: %s", model, reason)
                    self.say(ev.Died(model, reason))
                    return True
        return False

    def say(self, event: ev.Event) -> None:
        """Tell the scheduler, and perform what it asks for."""
        now = self._clock()
        self.state, effects = step(self.state, event, now)
        for effect in effects:
            self._perform(effect)
        self._set_timer(now)

    def _perform(self, effect: ev.Effect) -> None:
        match effect:
            case ev.Start(model):
                self._spawn(self._start(model))
            case ev.Stop(model):
                self._spawn(self._stop(model))
            case ev.Grant(request, model) if not self._answers[request].done():
                self._answers[request].set_result(model)
            case ev.Refuse(request) if not self._answers[request].done():
                self._answers[request].set_exception(refusal(effect))

    def _set_timer(self, stepped: float) -> None:
        """Wake for what falls due after `stepped`, the time the last step saw: what a later clock would skip is not lost."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = next_deadline(self.state, stepped)
        if due is not None:
            wait_s = max(0.0, due - self._clock())
            self._timer = asyncio.get_running_loop().call_later(wait_s, self.say, ev.Tick())

    async def _start(self, model: str) -> None:
        LOG.info("%s: starting", model)
        begin = self._clock()
        try:
            await bring_up(self._drivers[model], self.table.routes[model].start_timeout_s)
        except Exception as error:
            LOG.warning("%s: failed: %s", model, error, exc_info=not isinstance(error, StartError))
            self.say(ev.StartFailed(model, str(error)))
        else:
            LOG.info("%s: ready after %.2f s", model, self._clock() - begin)
            self.say(ev.Ready(model))

    async def _stop(self, model: str) -> None:
        LOG.info("%s: stopping", model)
        try:
            await self._drivers[model].stop()
        except Exception as error:
            LOG.warning("%s: not stopped: %s", model, error, exc_info=not isinstance(error, DriverError))
            self.say(ev.StopFailed(model, str(error)))
        else:
            LOG.info("%s: stopped", model)
            self.say(ev.Stopped(model))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            for model, slot in tuple(self.state.slots.items()):
                if slot.residency == "ready" and model in self._drivers:
                    await self.report_dead(model, looks=1)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
