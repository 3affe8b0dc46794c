"""Looks at the GPUs for the scheduler and the drivers: how often, whose the bytes are, and which look is too old.

Owns the rhythm of the sampler: slow while nothing moves, brisk while memory is awaited. A look that began before the
moment it would prove is thrown away. Decides nothing about who may have memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from imageworks.contract import RouteTable
from imageworks.runtime import processes
from imageworks.runtime.events import Measured, Reading
from imageworks.runtime.gpus import Gpus, Look, foreign_mib
from imageworks.runtime.holders import Holders

LOG = logging.getLogger(__name__)
IDLE_S, BRISK_S = 2.0, 0.2


class Measuring:
    """Measures for one drive. `seen`: there was a reading in this life."""

    def __init__(self, table: RouteTable, gpus: Gpus, holders: Holders) -> None:
        self._gpus, self._holders = gpus, holders
        self.use(table)
        self._moment = 0
        self._hurry = asyncio.Event()
        self._lock = asyncio.Lock()
        self.seen = False

    def use(self, table: RouteTable) -> None:
        """Another plan may attach other servers to the same GPUs."""
        self._attached = {
            int(slot) for route in table.routes.values() if route.program is None for slot in route.gpu_mib
        }

    @property
    def note(self) -> str | None:
        """Why memory is not measured; None while it is."""
        return self._gpus.note

    def moved(self) -> None:
        """Something changed that the next look must have seen: what is being looked at now proves nothing."""
        self._moment += 1
        self._hurry.set()

    async def once(self) -> Measured | None:
        """A look that began after the last `moved`; None where there never was a reading."""
        while True:
            moment, look = self._moment, await self._look()
            if moment == self._moment:
                break
        if not self.seen:
            return None
        return Measured({slot: self._judged(slot, look) for slot in look.readings}, look.lost)

    async def readings(self) -> Mapping[int, Reading | None] | None:
        """A look for a driver that wants to see memory come back; None where nothing can be measured."""
        look = await self._look()
        return look.readings if self.seen else None

    async def first(self, timeout_s: float) -> tuple[Mapping[int, str], Measured | None]:
        """The first look of this life: which card each slot is, and what they say. Waits `timeout_s` at most."""
        look = Look({})
        try:
            async with asyncio.timeout(timeout_s):
                look = await self._look()
        except TimeoutError:
            LOG.warning("the GPUs did not answer within %g s; their memory is not known yet", timeout_s)
        measured = Measured({slot: self._judged(slot, look) for slot in look.readings}, look.lost)
        return look.uuids, measured if self.seen else None

    async def run(self, say: Callable[[Measured], None], brisk: Callable[[], bool]) -> None:
        """Tell `say` until cancelled, or until there is nothing to look at; `brisk` asks for a faster rhythm."""
        while not self._gpus.absent:
            self._hurry.clear()
            measured = await self.once()
            if measured is not None:
                say(measured)
            try:
                async with asyncio.timeout(BRISK_S if brisk() else IDLE_S):
                    await self._hurry.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(BRISK_S / 4)  # a burst of moves is one look

    async def close(self) -> None:
        """End the sampler."""
        await self._gpus.close()

    async def _look(self) -> Look:
        async with self._lock:
            look = await self._gpus.look()
        self.seen = self.seen or any(reading is not None for reading in look.readings.values())
        return look

    def _judged(self, slot: int, look: Look) -> Reading | None:
        """The reading with what strangers hold, where that can be told.

        It cannot where bytes of ours are in processes that nobody named: an attached server, a lease without a pid.
        """
        reading = look.readings[slot]
        if reading is None or slot in look.untold or slot in self._attached or self._holders.unknown():
            return reading
        foreign = foreign_mib(reading, self._holders.ours, lambda pid: processes.look(pid) is not None)
        return replace(reading, foreign_mib=foreign)
