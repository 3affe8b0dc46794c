"""What survives a kill -9 of the manager: a model of its state file, and of the lock on it.

Owns commits (whole or not at all), a full disk, a file that cannot be read any more, and the one lock. What C's
storage promises is what this model does; the invariants about storage are checked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from imageworks.runtime.leases import Lease


@dataclass(frozen=True, slots=True)
class Saved:
    """One committed version of the file: leases by id, highest token by UUID, measured load times."""

    leases: Mapping[str, Lease] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)
    load_s: Mapping[str, float] = field(default_factory=dict)


class Store:
    """The file. `locked_by` is the one manager that may write."""

    __slots__ = ("corrupt", "ended", "full", "leases", "load_s", "locked_by", "tokens", "waking")

    def __init__(self) -> None:
        self.leases: dict[str, Lease] = {}
        self.tokens: dict[str, int] = {}
        self.load_s: dict[str, float] = {}
        self.ended: set[str] = set()
        self.waking: set[str] = set()
        self.full = self.corrupt = False
        self.locked_by: int | None = None

    def lock(self, manager: int) -> bool:
        """Take the lock; False when another manager lives."""
        if self.locked_by is not None:
            return False
        self.locked_by = manager
        self.ended.clear()
        return True

    def save(self, lease: Lease) -> bool:
        """Commit a lease with its tokens, and all ends that could not be written, at once; False when the disk is full."""
        if self.full:
            return False
        for ended in self.ended:
            self.leases.pop(ended, None)
        self.ended.clear()
        self.leases[lease.id] = lease
        for slot, token in lease.tokens.items():
            self._raise(lease.uuids[slot], token)
        return True

    def save_tokens(self, tokens: Mapping[str, int]) -> bool:
        """Commit tokens by UUID; False when the disk is full."""
        if self.full:
            return False
        for uuid, token in tokens.items():
            self._raise(uuid, token)
        return True

    def _raise(self, uuid: str, token: int) -> None:
        if token > self.tokens.get(uuid, 0):
            self.tokens[uuid] = token

    def intend(self, model: str) -> bool:
        """Commit that a model is about to be woken; False when the disk is full."""
        if not self.full:
            self.waking.add(model)
        return not self.full

    def forget(self, lease: str) -> bool:
        """Commit the end of a lease; False when the disk is full."""
        if self.full:
            self.ended.add(lease)
        else:
            self.leases.pop(lease, None)
        return not self.full

    def read(self) -> Saved | None:
        """The last committed version; None when the file cannot be read: it is set aside and a new one begins."""
        if self.corrupt:
            self.corrupt = False
            self.leases, self.tokens, self.load_s = {}, {}, {}
            return None
        return Saved(dict(self.leases), dict(self.tokens), dict(self.load_s))
