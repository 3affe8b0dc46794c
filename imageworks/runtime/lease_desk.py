"""The desk of the leases: who asked, what is written down before it is told, and whose processes are watched.

Owns the answers to lease calls and the effects about leases. A lease that cannot be written down is not given. Decides
nothing about who gets one.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from dataclasses import replace

from imageworks.runtime import events as ev
from imageworks.runtime import processes
from imageworks.runtime.errors import ApiError, denial
from imageworks.runtime.holders import Holders
from imageworks.runtime.leases import Lease
from imageworks.runtime.ledger import Kept, Ledger, LedgerError

LOG = logging.getLogger(__name__)
UNWRITABLE_AGAIN_S = 5.0
LeaseCall = ev.Acquire | ev.Renew | ev.Release | ev.ForceRelease | ev.Handover


class LeaseDesk:
    """One desk for one drive, whose `say` tells the scheduler.

    `queued` has the last known place of each waiting call, also after it was denied: whoever asked takes it out.
    `closed_until` (on the scheduler's clock): after the ledger was lost nobody gets a lease before every earlier holder
    must have heard that his is gone.
    """

    def __init__(self, ledger: Ledger, holders: Holders, say: Callable[[ev.Event], None]) -> None:
        self._ledger, self._holders, self._say = ledger, holders, say
        self._calls: dict[str, asyncio.Future[Lease]] = {}
        self._written: dict[str, Lease] = {}
        self._numbers = itertools.count(1)
        self.queued: dict[str, ev.LeaseQueued] = {}
        self.closed_until = 0.0

    def call_id(self) -> str:
        """A name for a lease call."""
        return f"call-{next(self._numbers)}"

    async def ask(self, event: LeaseCall) -> Lease:
        """Ask about a lease; returns it as it is then, written down. Raises ApiError; cancelling leaves the queue."""
        answer: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._calls[event.call] = answer
        try:
            self._say(event)
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled():
                answer.exception()  # nobody will ask for it any more
            self._say(ev.Withdraw(event.call))
            raise
        finally:
            del self._calls[event.call]

    def take_over(self, kept: Kept) -> tuple[Lease, ...]:
        """The leases of the life before this one that can still have a holder: those of another boot have none."""
        here = tuple(lease for boot, lease in kept.leases if boot == processes.boot_id())
        for _, lease in kept.leases:
            if lease not in here:
                self._drop(lease.id)
        for lease in here:
            self._written[lease.id] = lease
            self._holders.watch(lease)
        return here

    def perform(self, effect: ev.Effect) -> None:
        """Perform an effect about a lease."""
        match effect:
            case ev.LeaseGranted(call, lease):
                self._granted(call, lease)
            case ev.LeaseQueued(call):
                self.queued[call] = effect
            case ev.LeaseAnswered(call, lease):
                self._answered(call, lease)
            case ev.LeaseDenied(call):
                self._fail(call, denial(effect))
            case ev.LeaseEnded(lease_id, cause):
                LOG.info("lease %s is over: %s", lease_id, cause)
                self._written.pop(lease_id, None)
                self._holders.forget(lease_id)
                self._drop(lease_id)

    def _granted(self, call: str, lease: Lease) -> None:
        try:
            self._write(lease)
        except LedgerError as error:
            self._unsaved(call, lease, error)
            return
        self._holders.watch(lease)
        self._resolve(call, lease)

    def _answered(self, call: str, lease: Lease) -> None:
        if lease.state != "free":
            try:
                self._write(lease)
            except LedgerError as error:
                known = self._written.get(lease.id)
                if lease.state == "active" and (known is None or known.tokens != lease.tokens):
                    self._unsaved(call, lease, error)  # after a kill the token before this one would be good again
                    return
                # it is held and stays so; what the file lacks only a restart misses
            self._holders.watch(lease)
        self._resolve(call, lease)

    def _unsaved(self, call: str, lease: Lease, error: LedgerError) -> None:
        LOG.error("lease %s is not given: %s", lease.id, error)
        self._fail(call, denial(ev.LeaseDenied(call, "state_unwritable", str(error), UNWRITABLE_AGAIN_S)))
        self._say(ev.Unsaved(lease.id))

    def _write(self, lease: Lease) -> None:
        """Write a lease down if anything but its time changed. Raises LedgerError."""
        lasting = replace(lease, expires=0.0)
        if self._written.get(lease.id) != lasting:
            self._ledger.keep_lease(lasting, processes.boot_id())
            self._written[lease.id] = lasting

    def _drop(self, lease: str) -> None:
        try:
            self._ledger.drop_lease(lease)
        except LedgerError as error:
            LOG.warning("%s", error)

    def _resolve(self, call: str, lease: Lease) -> None:
        if (answer := self._calls.get(call)) is not None and not answer.done():
            answer.set_result(lease)

    def _fail(self, call: str, error: ApiError) -> None:
        if (answer := self._calls.get(call)) is not None and not answer.done():
            answer.set_exception(error)
