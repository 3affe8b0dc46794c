"""What is known of one GPU: who holds how much of it, what a reading shows, and how much a new grant may take.

Owns the arithmetic of GPU memory. Accounted and measured memory are both kept, and the smaller counts: what processes
hold that are not ours only ever takes away. Where readings were seen and then stay out, nothing new is granted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from imageworks.runtime.events import Reading

STALE_S = 15.0
"""A reading that is older says nothing about now."""
CLOSED = -(1 << 40)


@dataclass(slots=True)
class Gpu:
    """One GPU slot. `claims` maps holder -> MiB; what lives inside a lease is part of the lease's claim.

    `unbinding` are claims of leases that are only observed. `moving` are holders that load or unload, `rising` what the
    loading ones claim. `exclusive` is the lease that has the GPU for itself. `calm`: the
    reading was taken when nobody moved and nobody did since. `due_mib` is what is in use at most once what came up
    since the reading is counted.
    """

    slot: int
    uuid: str
    budget_mib: int
    claims: dict[str, int] = field(default_factory=dict)
    claimed_mib: int = 0
    unbinding: dict[str, int] = field(default_factory=dict)
    moving: set[str] = field(default_factory=set)
    rising_mib: int = 0
    leases: set[str] = field(default_factory=set)
    exclusive: str | None = None
    token: int = 0
    reading: Reading | None = None
    read_at: float = 0.0
    measured: bool = False
    calm: bool = False
    foreign_mib: int = 0
    lost: bool = False
    due_mib: int = 0

    def claim(self, holder: str, mib: int) -> None:
        """Let `holder` claim exactly `mib` from now."""
        self.claimed_mib += mib - self.claims.pop(holder, 0)
        if mib:
            self.claims[holder] = mib

    def look(self, reading: Reading | None, now: float) -> None:
        """Take a reading; None: the GPU did not answer."""
        self.reading = reading
        if reading is not None:
            self.measured, self.read_at, self.due_mib = True, now, 0
            self.calm = not self.moving and not self.leases
            self.reckon()

    def reckon(self) -> None:
        """What is in use and nobody of ours claims is foreign, by the last reading."""
        if self.reading is not None:
            seen = self.reading.foreign_mib or 0
            self.foreign_mib = max(seen, self.reading.used_mib - self.claimed_mib, 0)

    def used(self) -> int | None:
        """MiB in use, by the last reading and by what came up since; None where there is none."""
        return None if self.reading is None else max(self.reading.used_mib, self.due_mib)

    def unused(self) -> int | None:
        """MiB of the card that nobody uses or is about to; None where there is no reading."""
        used = self.used()
        return None if self.reading is None or used is None else self.reading.total_mib - used - self.rising_mib

    def came_up(self, mib: int, base_mib: int) -> None:
        """Who claims `mib` is up and may use all of it on top of `base_mib`; the last reading is from before that."""
        used = self.used()
        if used is not None:
            self.due_mib = max(self.due_mib, mib + min(base_mib, used))

    def closed(self, now: float) -> bool:
        """Is nothing known of it that a new grant could rely on?"""
        return self.lost or (self.measured and (self.reading is None or now - self.read_at > STALE_S))

    def room(self, now: float) -> int:
        """MiB that a new grant may take: min(accounted, measured), 0 while it is closed.

        What others hold takes from the card beside its budget first: a budget leaves room for them.
        """
        return max(0, self.slack(now))

    def slack(self, now: float) -> int:
        """As `room`, but below 0 by what must come back before anything is free; CLOSED where no eviction would help."""
        if self.closed(now):
            return CLOSED
        free = self.budget_mib - self.claimed_mib
        if self.measured and self.reading is not None:
            total, used = self.reading.total_mib, max(self.reading.used_mib, self.due_mib)
            free = min(free, total - self.foreign_mib - self.claimed_mib, total - used - self.rising_mib)
        return free

    def next_token(self) -> int:
        """A fencing token above all that were given here before."""
        self.token += 1
        return self.token

    def copy(self) -> Gpu:
        """An independent copy."""
        return Gpu(
            self.slot, self.uuid, self.budget_mib, dict(self.claims), self.claimed_mib, dict(self.unbinding),
            set(self.moving), self.rising_mib, set(self.leases), self.exclusive, self.token, self.reading, self.read_at,
            self.measured, self.calm, self.foreign_mib, self.lost, self.due_mib,
        )  # fmt: skip
