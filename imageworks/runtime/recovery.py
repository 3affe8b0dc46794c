"""What was there before this life: programs that run, leases that were held, orphans of a supervisor that was killed.

Owns the look around at the start, all models at once, and which card each GPU slot is. Nothing is granted before it is
done. Ends nothing but processes of our own programs that no process control knows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from imageworks import locations
from imageworks.contract import RouteTable
from imageworks.runtime import processes
from imageworks.runtime.backends.probe import observe
from imageworks.runtime.backends.protocol import Driver, DriverError
from imageworks.runtime.leases import Holder
from imageworks.runtime.ledger import Kept

LOG = logging.getLogger(__name__)
Observed = Literal["starting", "ready", "asleep"]
AGAIN_S, TRIES = 0.2, 3
"""A process control that does not answer yet, as after a boot, is asked again."""
ORPHAN_GRACE_S = 5.0


async def look_around(drivers: Mapping[str, Driver]) -> Mapping[str, Observed | None]:
    """What each model does, None: it is not there. A model is missing where its process control does not answer."""
    found = await asyncio.gather(*(_look(name, driver) for name, driver in drivers.items()))
    return {name: seen for name, (known, seen) in zip(drivers, found, strict=True) if known}


async def _look(name: str, driver: Driver) -> tuple[bool, Observed | None]:
    for left in reversed(range(TRIES)):
        try:
            return True, await observe(driver)
        except Exception as error:  # one driver's bug must not keep the others from serving
            if not left:
                LOG.warning("%s: unknown whether it runs: %s", name, error, exc_info=not isinstance(error, DriverError))
            else:
                await asyncio.sleep(AGAIN_S)
    return False, None


async def end_orphans(table: RouteTable, absent: Mapping[str, object], stack: Path) -> None:
    """End processes of models that process control says are not there: they outlived a supervisor that was killed."""
    programs = {table.routes[name].program for name in absent} - {None}
    left = await asyncio.to_thread(_orphans, stack, frozenset(program for program in programs if program is not None))
    if not left:
        return
    LOG.warning("ending what outlived its supervisor: %s", ", ".join(f"{name} ({pid})" for pid, name in left.items()))
    names = frozenset(left.values())
    stuck = await asyncio.to_thread(processes.end, lambda: _holders(stack, names), ORPHAN_GRACE_S)
    for holder in stuck:
        LOG.error("process %d does not end; what it holds is not free", holder.pid)


def _orphans(stack: Path, programs: frozenset[str]) -> Mapping[int, str]:
    """Program by pid. One pass over the processes: most starts find nothing."""
    recorded = {holder.pid: program for program, holder in processes.recorded(stack).items() if program in programs}
    marked = {
        holder.pid: program
        for holder in processes.marked({"IMAGEWORKS_STACK": str(locations.absolute(stack, "."))})
        if (program := processes.environment(holder.pid).get("IMAGEWORKS_PROGRAM")) in programs and program is not None
    }
    return recorded | marked


def _holders(stack: Path, programs: frozenset[str]) -> list[Holder]:
    return [holder for program in programs for holder in processes.left_of(stack, program)]


def waking(looked: Mapping[str, Observed | None], kept: Kept) -> frozenset[str]:
    """Models that sleep and were being woken when the last life ended: their memory may be growing already."""
    return frozenset(name for name, seen in looked.items() if seen == "asleep" and kept.wanted.get(name) == "waking")


def cards(table: RouteTable, kept: Kept, bound: Mapping[int, str], seen: Mapping[int, str]) -> Mapping[int, str]:
    """The UUID of each GPU slot: as seen now, as `imageworks up` bound it, as a lease had it; else a name for the slot."""
    held = {slot: uuid for _, lease in kept.leases for slot, uuid in lease.uuids.items()}
    named = {slot: uuid for slot, uuid in bound.items() if not uuid.startswith("#")}
    known = {**held, **named, **seen}
    return {gpu.slot: known.get(gpu.slot, f"slot-{gpu.slot}") for gpu in table.gpus}


def tokens_here(kept: Kept, uuids: Mapping[int, str], floor: int) -> Mapping[int, int]:
    """The highest token of each GPU slot that can ever have been given."""
    return {slot: max(floor, kept.tokens.get(uuid, 0)) for slot, uuid in uuids.items()}
