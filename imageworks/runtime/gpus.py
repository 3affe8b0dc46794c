"""What the GPUs say about their memory, without ever waiting for them.

Owns the sampler process (NVML lives there), its deadline and its restarts, the binding of plan slots to cards, and who
of the processes on a card is a stranger. A look that fails is an answer, None for that card, and never an exception.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from imageworks import locations
from imageworks.contract import RouteTable
from imageworks.runtime.events import Reading
from imageworks.runtime.sampler import EXIT_ABSENT

LOG = logging.getLogger(__name__)
DEADLINE_S = 3.0
"""NVML answers in milliseconds; a driver that is recovering from an error blocks for seconds."""
REST_S, LONGEST_REST_S = 0.5, 30.0
SAMPLER: Sequence[str] = (sys.executable, "-P", "-m", "imageworks.runtime.sampler")


@dataclass(frozen=True, slots=True)
class Look:
    """One look at all cards, by GPU slot. `untold`: cards whose driver does not say what each process holds."""

    readings: Mapping[int, Reading | None]
    lost: tuple[int, ...] = ()
    uuids: Mapping[int, str] = field(default_factory=dict)
    untold: frozenset[int] = frozenset()


class _Card(msgspec.Struct):
    uuid: str
    total: int
    used: int
    pids: dict[int, int | None] | None


class _Answer(msgspec.Struct):
    cards: dict[str, _Card | None] = {}
    lost: list[str] = []
    error: str | None = None


def bound_cards(stack: Path, table: RouteTable) -> dict[int, str]:
    """The card of each GPU slot as `imageworks up` bound it; `#N`, the N-th in PCI order, where it did not."""
    bound: Sequence[str] = ()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        data = json.loads(locations.devices_file(stack).read_bytes())
        bound = [str(uuid) for uuid in data["uuids"]] if data["profile"] == table.profile else ()
    return {gpu.slot: bound[gpu.slot] if gpu.slot < len(bound) else f"#{gpu.slot}" for gpu in table.gpus}


class Gpus:
    """The cards of one plan. `note` says why there are no readings, None while there are."""

    def __init__(
        self, cards: Mapping[int, str], sampler: Sequence[str] = SAMPLER, deadline_s: float = DEADLINE_S
    ) -> None:
        self._cards, self._sampler, self._deadline_s = dict(cards), tuple(sampler), deadline_s
        self._process: asyncio.subprocess.Process | None = None
        self._rest_s, self._rest_until = REST_S, 0.0
        self.note: str | None = "not looked yet" if cards else "the plan uses no GPU"
        self.absent = not cards

    async def look(self) -> Look:
        """Look once, within the deadline. `absent` afterwards: there is no driver, so nobody need look again."""
        nothing = Look(dict.fromkeys(self._cards))
        if self.absent or time.monotonic() < self._rest_until:
            return nothing
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = msgspec.json.decode(await self._ask(), type=_Answer, strict=False)
        except (TimeoutError, OSError, RuntimeError, msgspec.MsgspecError) as error:
            # uvloop raises RuntimeError for the pipe of a sampler that was killed since the last look
            await self._failed(error)
            return nothing
        except asyncio.CancelledError:
            self._drop()  # its answer is on the way, and would be taken for that of the next look
            raise
        self._rest_s = REST_S
        self.note = answer.error
        return nothing if answer.error else self._read(answer)

    async def close(self) -> None:
        """End the sampler."""
        if (process := self._drop()) is not None:
            await process.wait()

    def _drop(self) -> asyncio.subprocess.Process | None:
        """Kill the sampler; the next look begins a new one."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        return process

    async def _ask(self) -> bytes:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *self._sampler,
                *self._cards.values(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 20,
            )
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None  # noqa: S101 - we asked for both pipes
        assert answers is not None  # noqa: S101
        with contextlib.suppress(ConnectionError):  # it is gone: the end of its output says so
            asked.write(b"\n")
            await asked.drain()
        return await answers.readline()

    async def _failed(self, error: Exception) -> None:
        """Start a new sampler next time, but not at once: what broke it may still be there."""
        process = self._process
        if process is not None and not isinstance(error, TimeoutError):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 1.0)
        if process is not None and process.returncode == EXIT_ABSENT:
            self.absent, self.note = True, "no NVIDIA driver: libnvidia-ml.so.1 is not installed"
            LOG.info("GPU memory is accounted, not measured: %s", self.note)
        else:
            late = isinstance(error, TimeoutError)
            self.note = f"NVML did not answer within {self._deadline_s:g} s" if late else "the sampler of NVML ended"
            LOG.warning("no reading of GPU memory: %s; next try in %g s", self.note, self._rest_s)
        await self.close()
        self._rest_until = time.monotonic() + self._rest_s
        self._rest_s = min(LONGEST_REST_S, 2 * self._rest_s)

    def _read(self, answer: _Answer) -> Look:
        slots = {name: slot for slot, name in self._cards.items()}
        cards = {slots[name]: card for name, card in answer.cards.items() if name in slots}
        return Look(
            readings={slot: _reading(cards.get(slot)) for slot in self._cards},
            lost=tuple(slots[name] for name in answer.lost if name in slots),
            uuids={slot: card.uuid for slot, card in cards.items() if card is not None},
            untold=frozenset(slot for slot, card in cards.items() if card is not None and not _told(card)),
        )


def _reading(card: _Card | None) -> Reading | None:
    if card is None:
        return None
    return Reading(card.total, card.used, None, {pid: mib or 0 for pid, mib in (card.pids or {}).items()})


def _told(card: _Card) -> bool:
    return card.pids is not None and None not in card.pids.values()


def foreign_mib(reading: Reading, ours: Callable[[int], bool], visible: Callable[[int], bool]) -> int | None:
    """MiB that processes hold which are not ours; None where the pids tell nothing: a container shows those of its host."""
    if not all(visible(pid) for pid in reading.pids):
        return None
    return sum(mib for pid, mib in reading.pids.items() if not ours(pid))
