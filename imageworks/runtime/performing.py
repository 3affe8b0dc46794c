"""Does what the scheduler asks for, with the drivers, and says how it went.

Owns the work behind Start, Stop, Sleep, Wake and Reclaim: each is answered exactly once, whatever happens. What was
wanted and how long a start took is written down on the way. Decides nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from imageworks.runtime import events as ev
from imageworks.runtime.backends.probe import bring_up
from imageworks.runtime.backends.protocol import DriverError, StartError
from imageworks.runtime.holders import Holders
from imageworks.runtime.ledger import Ledger, LedgerError, Wanted
from imageworks.runtime.lineup import Lineup

LOG = logging.getLogger(__name__)


class Performing:
    """Performs for one drive; `say` feeds back what happened."""

    def __init__(
        self,
        lineup: Lineup,
        ledger: Ledger,
        holders: Holders,
        *,
        say: Callable[[ev.Event], None],
        clock: Callable[[], float],
    ) -> None:
        self._lineup, self._ledger, self._holders = lineup, ledger, holders
        self._say, self._clock = say, clock

    async def start(self, model: str, tokens: Mapping[str, int], *, adopted: bool = False) -> None:
        """Bring it up, or wait for one that was starting already. `tokens` by GPU UUID."""
        LOG.info("%s: starting", model)
        begin = self._clock()
        self._want(model, "up", tokens)
        if not adopted:
            self._lineup.begin(model)
        try:
            await bring_up(self._lineup[model], self._lineup.route(model).start_timeout_s)
        except Exception as error:
            LOG.warning("%s: failed: %s", model, error, exc_info=not isinstance(error, StartError))
            self._say(ev.StartFailed(model, str(error), again=isinstance(error, StartError) and error.again))
        else:
            seconds = self._clock() - begin
            LOG.info("%s: ready after %.2f s", model, seconds)
            if not adopted:
                self._write(lambda: self._ledger.loaded(model, seconds))
            self._say(ev.Ready(model))

    async def stop(self, model: str) -> None:
        """Stop it and all that is left of it."""
        LOG.info("%s: stopping", model)
        self._want(model, "stopping")
        try:
            await self._lineup[model].stop()
        except Exception as error:
            LOG.warning("%s: not stopped: %s", model, error, exc_info=not isinstance(error, DriverError))
            self._say(ev.StopFailed(model, str(error), error.pids if isinstance(error, DriverError) else ()))
        else:
            LOG.info("%s: stopped", model)
            self._want(model, None)
            self._say(ev.Stopped(model))

    async def sleep(self, model: str, level: int) -> None:
        """Put it to sleep, verified."""
        try:
            await self._lineup[model].sleep(level)
        except Exception as error:
            LOG.warning("%s: does not sleep: %s", model, error, exc_info=not isinstance(error, DriverError))
            self._say(ev.SleepFailed(model, str(error)))
        else:
            self._say(ev.Slept(model))

    async def wake(self, model: str, tokens: Mapping[str, int]) -> None:
        """Wake it, verified."""
        self._want(model, "up", tokens)
        try:
            await self._lineup[model].wake()
        except Exception as error:
            LOG.warning("%s: does not wake: %s", model, error, exc_info=not isinstance(error, DriverError))
            self._say(ev.WakeFailed(model, str(error)))
        else:
            self._say(ev.Ready(model))

    async def reclaim(self, lease: str) -> None:
        """End what is left of the lease's processes."""
        try:
            left = await self._holders.end(lease)
        except Exception as error:
            LOG.exception("lease %s: its processes could not be looked for", lease)
            self._say(ev.ReclaimFailed(lease, str(error)))
            return
        if left:
            pids = tuple(holder.pid for holder in left)
            LOG.error("lease %s: processes do not end: %s", lease, pids)
            self._say(ev.ReclaimFailed(lease, f"{len(pids)} processes do not end", pids))
        else:
            self._say(ev.Reclaimed(lease))

    def _want(self, model: str, state: Wanted | None, tokens: Mapping[str, int] | None = None) -> None:
        self._write(lambda: self._ledger.want(model, state, tokens))

    def _write(self, write: Callable[[], None]) -> None:
        """What cannot be written down must not stop what runs: /readyz tells of it, and new leases are refused."""
        try:
            write()
        except LedgerError as error:
            LOG.warning("%s", error)
