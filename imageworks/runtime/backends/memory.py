"""Proof that a model gave its memory back, from looks at the GPUs.

Owns the comparison of a look before with looks after: by the model's own processes where the driver names them, else
by what the whole GPU uses. Decides nothing about who may have the memory then; that is the scheduler's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from imageworks.runtime.backends.protocol import Readings
from imageworks.runtime.events import Reading

TOLERANCE_MIB = 256
TOLERANCE_PART = 0.1
"""Of what was planned to come back: an engine may hold somewhat less than its plan."""
PAUSE_S = 0.25


@dataclass(frozen=True, slots=True)
class Expected:
    """A model's plan on one GPU slot in MiB: what it holds now and what may stay."""

    held_mib: int
    stays_mib: int

    @property
    def slack_mib(self) -> int:
        """How far a measurement may be off."""
        return max(TOLERANCE_MIB, round(TOLERANCE_PART * (self.held_mib - self.stays_mib)))


def own_mib(reading: Reading, pids: Iterable[int]) -> int:
    """What these processes hold, as far as the GPU names them; 0 also where it names nobody (containers do that)."""
    return sum(reading.pids.get(pid, 0) for pid in pids)


def missing_mib(before: Reading, after: Reading, pids: Iterable[int], expected: Expected) -> int:
    """MiB that are not back yet, beyond the slack; 0 when the proof is complete."""
    own = tuple(pids)
    if own_mib(before, own):
        limit, used = expected.stays_mib, own_mib(after, own)
    else:
        limit, used = before.used_mib - (expected.held_mib - expected.stays_mib), after.used_mib
    left = used - max(0, limit)
    return left if left > expected.slack_mib else 0


class DarkError(Exception):
    """A GPU that is measured gives no answer now."""


async def look(readings: Readings | None, slots: Iterable[int]) -> dict[int, Reading] | None:
    """One look at these slots; None where nothing is measured. Raises DarkError when one of them does not answer."""
    found = await readings() if readings is not None else None
    if found is None:
        return None
    wanted = {slot: found.get(slot) for slot in slots}
    known = {slot: reading for slot, reading in wanted.items() if reading is not None}
    if len(known) < len(wanted):
        raise DarkError(", ".join(f"GPU {slot} does not answer" for slot in wanted if slot not in known))
    return known


async def not_back(
    readings: Readings | None,
    before: Mapping[int, Reading],
    pids: Iterable[int],
    expected: Mapping[int, Expected],
    timeout_s: float,
) -> str | None:
    """Look until everything is back; None then, else after `timeout_s` what is not, for the user."""
    own, until = tuple(pids), time.monotonic() + timeout_s
    while True:
        missing = await _missing(readings, before, own, expected)
        if missing is None or time.monotonic() >= until:
            return missing and f"memory is not back after {timeout_s:g} s: {missing}"
        await asyncio.sleep(PAUSE_S)


async def _missing(
    readings: Readings | None, before: Mapping[int, Reading], pids: tuple[int, ...], expected: Mapping[int, Expected]
) -> str | None:
    try:
        after = await look(readings, expected)
    except DarkError as error:
        return str(error)
    if after is None:
        return "it cannot be measured any more"
    left = {slot: missing_mib(before[slot], after[slot], pids, each) for slot, each in expected.items()}
    return ", ".join(f"{mib} MiB too much on GPU {slot}" for slot, mib in left.items() if mib) or None
