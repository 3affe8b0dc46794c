"""Does what the scheduler asks for, with the drivers, and says how it went.

Owns the work behind Start, Stop, Sleep, Wake and Reclaim: each is answered exactly once, whatever happens, but for work
that newer work on the same model superseded: its answer is dropped. What was wanted and how long a start took is written
down on the way. Decides nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping

from imageworks.runtime import events as ev
from imageworks.runtime.backends.probe import bring_up
from imageworks.runtime.backends.protocol import DriverError, StartError
from imageworks.runtime.holders import Holders
from imageworks.runtime.ledger import Ledger, LedgerError, Wanted
from imageworks.runtime.lineup import Lineup

LOG = logging.getLogger(__name__)
Work = ev.Start | ev.Stop | ev.Sleep | ev.Wake | ev.Reclaim


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
        self._newest: dict[str, int] = {}

    def perform(self, work: Work, uuids: Mapping[int, str]) -> Coroutine[object, object, None]:
        """The work to be run, numbered in the order of these calls; `uuids` of the GPU slots."""
        if isinstance(work, ev.Reclaim):
            return self._reclaim(work.lease)
        number = self._next(work.model)
        match work:
            case ev.Start(model, tokens):
                return self._start(number, model, {uuids[slot]: token for slot, token in tokens.items()})
            case ev.Stop(model):
                return self._stop(number, model)
            case ev.Sleep(model, level):
                return self._sleep(number, model, level)
            case ev.Wake(model, tokens):
                return self._wake(number, model, {uuids[slot]: token for slot, token in tokens.items()})

    def await_start(self, model: str) -> Coroutine[object, object, None]:
        """Wait for one that was starting before we came."""
        return self._start(self._next(model), model, {}, adopted=True)

    def finish_wake(self, model: str) -> Coroutine[object, object, None]:
        """Wake one whose wake began before we came, and nobody knows how far it got. To the scheduler it starts."""
        return self._finish_wake(self._next(model), model)

    def _next(self, model: str) -> int:
        number = self._newest[model] = self._newest.get(model, 0) + 1
        return number

    def _tell(self, number: int, model: str, event: ev.Event) -> None:
        if self._newest[model] == number:
            self._say(event)
        else:
            LOG.info("%s: an answer that comes too late is dropped: %s", model, type(event).__name__)

    async def _start(self, number: int, model: str, tokens: Mapping[str, int], *, adopted: bool = False) -> None:
        LOG.info("%s: starting", model)
        begin = self._clock()
        self._want(model, "up", tokens)
        if not adopted:
            self._lineup.begin(model)
        try:
            await bring_up(self._lineup[model], self._lineup.route(model).start_timeout_s)
        except Exception as error:
            LOG.warning("%s: failed: %s", model, error, exc_info=not isinstance(error, StartError))
            again = isinstance(error, StartError) and error.again
            self._tell(number, model, ev.StartFailed(model, str(error), again=again))
        else:
            seconds = self._clock() - begin
            LOG.info("%s: ready after %.2f s", model, seconds)
            if not adopted and self._newest[model] == number:
                self._write(lambda: self._ledger.loaded(model, seconds))
            self._tell(number, model, ev.Ready(model))

    async def _stop(self, number: int, model: str) -> None:
        LOG.info("%s: stopping", model)
        self._want(model, "stopping")
        try:
            await self._lineup[model].stop()
        except Exception as error:
            LOG.warning("%s: not stopped: %s", model, error, exc_info=not isinstance(error, DriverError))
            pids = error.pids if isinstance(error, DriverError) else ()
            self._tell(number, model, ev.StopFailed(model, str(error), pids))
        else:
            LOG.info("%s: stopped", model)
            if self._newest[model] == number:
                self._want(model, None)
            self._tell(number, model, ev.Stopped(model))

    async def _sleep(self, number: int, model: str, level: int) -> None:
        try:
            await self._lineup[model].sleep(level)
        except Exception as error:
            LOG.warning("%s: does not sleep: %s", model, error, exc_info=not isinstance(error, DriverError))
            self._tell(number, model, ev.SleepFailed(model, str(error)))
        else:
            self._tell(number, model, ev.Slept(model))

    async def _wake(self, number: int, model: str, tokens: Mapping[str, int]) -> None:
        """Not begun when that cannot be written down: a proxy that is killed meanwhile would take it for asleep still."""
        if not self._want(model, "waking", tokens):
            self._tell(number, model, ev.WakeFailed(model, "its wake could not be written down"))
            return
        reason = await self._woken(model)
        if self._newest[model] == number:
            self._want(model, "up")
        self._tell(number, model, ev.Ready(model) if reason is None else ev.WakeFailed(model, reason))

    async def _finish_wake(self, number: int, model: str) -> None:
        reason = await self._woken(model)
        self._tell(number, model, ev.Ready(model) if reason is None else ev.StartFailed(model, reason, again=True))

    async def _woken(self, model: str) -> str | None:
        """Why it does not wake; None: it is awake, verified."""
        try:
            await self._lineup[model].wake()
        except Exception as error:
            LOG.warning("%s: does not wake: %s", model, error, exc_info=not isinstance(error, DriverError))
            return str(error)
        return None

    async def _reclaim(self, lease: str) -> None:
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

    def _want(self, model: str, state: Wanted | None, tokens: Mapping[str, int] | None = None) -> bool:
        return self._write(lambda: self._ledger.want(model, state, tokens))

    def _write(self, write: Callable[[], None]) -> bool:
        """What cannot be written down must not stop what runs: /readyz tells of it, and new leases are refused."""
        try:
            write()
        except LedgerError as error:
            LOG.warning("%s", error)
            return False
        return True
