"""The true GPUs: who holds how many MiB on which card, and what NVML says about it.

Owns the truth that the scheduler never sees, and its readings: with noise, missing, lying, or of a lost card.
`held` is what a holder's living processes use, `tails` what did not come back yet after they were gone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from imageworks.runtime.events import Reading

NOISE_MIB = 90
FOREIGN = "foreign"
STRANDED = "stranded "


class Cards:
    """Bytes on each slot's card. A card is known by its UUID; `order` is the index NVML gives it in this boot."""

    __slots__ = (
        "_noise",
        "blind",
        "gone_until",
        "held",
        "lie_until",
        "lost",
        "order",
        "tails",
        "totals",
        "touched",
        "uuids",
    )

    def __init__(self, totals: Mapping[int, int], uuids: Mapping[int, str], *, blind: bool) -> None:
        self.totals, self.uuids, self.blind = totals, uuids, blind
        self.order = list(uuids)
        self.held: dict[int, dict[str, int]] = {slot: {} for slot in totals}
        self.tails: dict[int, dict[str, int]] = {slot: {} for slot in totals}
        self.lost: set[int] = set()
        self.touched: set[int] = set()  # slots where processes broke their word: the promise to fit is off
        self.gone_until = self.lie_until = -1.0
        self._noise = 12_345

    def used(self, slot: int) -> int:
        """MiB in use, ours, leftovers and foreign."""
        return sum(self.held[slot].values()) + sum(self.tails[slot].values())

    def of(self, slot: int, holder: str) -> int:
        """MiB that are a holder's, leftovers included."""
        return self.held[slot].get(holder, 0) + self.tails[slot].get(holder, 0)

    def hold(self, holder: str, mib: Mapping[int, int]) -> None:
        """A holder's processes use `mib` now."""
        for slot, amount in mib.items():
            if slot not in self.lost:
                self.held[slot][holder] = amount

    def let_go(self, holder: str, kept: float = 0.0) -> None:
        """A holder's processes are gone; a share `kept` of their bytes is not back yet."""
        for slot, holders in self.held.items():
            amount = holders.pop(holder, 0)
            if amount and kept:
                self.tails[slot][holder] = self.tails[slot].get(holder, 0) + int(amount * kept)

    def give_back(self, holder: str) -> None:
        """What was left behind by a holder is back."""
        for tails in self.tails.values():
            tails.pop(holder, None)
            tails.pop(STRANDED + holder, None)

    def strand(self, holder: str) -> None:
        """Nobody waits for these bytes any more: they are a stranger's.

        Where pids tell nothing, a stranger that leaves hides as much that did not come back: no promise holds there.
        """
        for slot, tails in self.tails.items():
            if holder in tails:
                if self.blind:
                    self.touched.add(slot)
                tails[STRANDED + holder] = tails.get(STRANDED + holder, 0) + tails.pop(holder)

    def overfull(self) -> list[int]:
        """Slots whose card holds more than it has although nobody broke its word there."""
        return [
            slot
            for slot, total in self.totals.items()
            if slot not in self.touched and not self.tails[slot] and self.used(slot) > total
        ]

    def sample(self, now: float, ours: Collection[str]) -> dict[str, Reading | None]:
        """One look at every card, by UUID. Who is not one of `ours` is a stranger, where pids tell."""
        if now < self.gone_until:
            return dict.fromkeys(self.uuids.values())
        lying = now < self.lie_until
        return {
            self.uuids[slot]: None if slot in self.lost else self._reading(slot, ours, lying=lying)
            for slot in self.order
        }

    def _reading(self, slot: int, ours: Collection[str], *, lying: bool) -> Reading:
        self._noise = (self._noise * 1_103_515_245 + 12_345) & 0x7FFFFFFF
        used = self.used(slot)
        shown = used // 2 if lying else max(0, used + self._noise % (2 * NOISE_MIB) - NOISE_MIB)
        foreign = sum(mib for holder, mib in self.held[slot].items() if holder not in ours)
        if self.blind:
            if foreign:  # when it leaves, it hides as much that did not come back: see `strand`
                self.touched.add(slot)
            return Reading(self.totals[slot], shown)
        return Reading(self.totals[slot], shown, foreign)
