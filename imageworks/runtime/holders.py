"""The processes that hold leases: watched, remembered with all they started, and ended when a lease is taken back.

Owns what is known of each lease's process tree. A holder's end is noticed at once through its pidfd; its children are
remembered while it lives, for afterwards nobody is their parent. What left the tree is found by the mark that
`lease run` puts into the environment. Decides nothing about leases.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imageworks import locations
from imageworks.runtime import processes
from imageworks.runtime.leases import Holder, Lease
from imageworks.runtime.processes import LEASE_MARK, Process

END_GRACE_S = 10.0
"""From SIGTERM to SIGKILL for what a lease leaves behind: time to save a checkpoint."""


@dataclass(slots=True)
class _Watched:
    holder: Holder | None
    told: bool
    handle: int | None = None
    seen: dict[Holder, None] = field(default_factory=dict)


class Holders:
    """The holders of all leases; `gone` is called with a lease's id when its holder ended. `stack`: the stack's folder."""

    def __init__(self, gone: Callable[[str], None], stack: Path | None = None) -> None:
        self._gone = gone
        self._stack = str(locations.absolute(stack, ".")) if stack is not None else None
        self._watched: dict[str, _Watched] = {}

    def watch(self, lease: Lease) -> None:
        """From now on, until `forget`. A lease that changed hands is watched anew."""
        holder = lease.ask.holder
        known = self._watched.get(lease.id)
        if known is not None and known.holder == holder:
            return
        self.forget(lease.id)
        watched = self._watched[lease.id] = _Watched(holder, told=holder is not None)
        if holder is None:
            return
        watched.seen[holder] = None
        with contextlib.suppress(OSError):  # too many files, or gone: the next `remember` notices its end
            watched.handle = os.pidfd_open(holder.pid)
            asyncio.get_running_loop().add_reader(watched.handle, self._ended, lease.id)
        if not processes.alive(holder):
            asyncio.get_running_loop().call_soon(self._ended, lease.id)

    def forget(self, lease: str) -> None:
        """The lease is over."""
        watched = self._watched.pop(lease, None)
        if watched is not None:
            self._unwatch(watched)

    def close(self) -> None:
        """Watch nobody any more."""
        for lease in tuple(self._watched):
            self.forget(lease)

    def holds(self) -> bool:
        """Is there any process to be remembered?"""
        return any(watched.seen for watched in self._watched.values())

    def remember(self, running: Mapping[int, Process]) -> None:
        """Take down the trees as they are in `running`, what `processes.everything` said."""
        for lease, watched in tuple(self._watched.items()):
            living = [each for each in watched.seen if _is_in(each, running)]
            below = (each for root in living for each in processes.tree(root.pid, running))
            watched.seen = dict.fromkeys([*living, *below])
            if watched.holder is not None and not _is_in(watched.holder, running):
                self._ended(lease)

    def unknown(self) -> bool:
        """Is there a lease whose processes nobody told us?"""
        return any(not watched.told for watched in self._watched.values())

    def ours(self, pid: int) -> bool:
        """Does the process belong to a lease, or to a program of the stack?"""
        known = {each.pid for watched in self._watched.values() for each in watched.seen}
        if any(each in known for each in processes.ancestors(pid)):
            return True
        marks = processes.environment(pid)
        if marks.get(LEASE_MARK) in self._watched:
            return True
        return self._stack is not None and marks.get("IMAGEWORKS_STACK") == self._stack

    def left_of(self, lease: str) -> tuple[Holder, ...]:
        """Every process of the lease that still runs."""
        watched = self._watched.get(lease)
        seen: Iterable[Holder] = watched.seen if watched else ()
        running = processes.everything()
        trees = (each for root in seen if _is_in(root, running) for each in processes.tree(root.pid, running))
        return tuple(dict.fromkeys([*trees, *processes.marked({LEASE_MARK: lease})]))

    async def end(self, lease: str, grace_s: float = END_GRACE_S) -> tuple[Holder, ...]:
        """End what is left of the lease; returns who could not be ended."""
        return await asyncio.to_thread(processes.end, lambda: self.left_of(lease), grace_s)

    def _ended(self, lease: str) -> None:
        watched = self._watched.get(lease)
        if watched is None or watched.holder is None:
            return
        self._unwatch(watched)
        watched.holder = None
        self._gone(lease)

    @staticmethod
    def _unwatch(watched: _Watched) -> None:
        if watched.handle is not None:
            asyncio.get_running_loop().remove_reader(watched.handle)
            os.close(watched.handle)
            watched.handle = None


def _is_in(holder: Holder, running: Mapping[int, Process]) -> bool:
    found = running.get(holder.pid)
    return found is not None and found.start == holder.start
