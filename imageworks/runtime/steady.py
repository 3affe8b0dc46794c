"""A clock in which the time that this process did not run does not pass.

Owns the difference between the machine's monotonic time and the scheduler's. A process that was stopped (SIGSTOP, a
frozen container, a swapping machine) could hear no heartbeat meanwhile, so nobody may lose a lease for it: its time
stands still until every holder had a chance to be heard again. Time asleep with the machine is not counted by the
monotonic clock in the first place.
"""

from __future__ import annotations

import time
from collections.abc import Callable

BEAT_S = 1.0
"""How often `beat` must be called."""
STALL_S = 4.0
"""A silence of the beat from here on is a stall, not load."""
ROUND_S = 5.0
"""After a stall time stands still this long: heartbeats that were sent meanwhile are waiting in our sockets, and who
saw us time out asks again within seconds."""


class SteadyClock:
    """Call it for the time in seconds. `stalled` is called once for each stall, with its length."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat = self._last = clock()
        self.skipped_s = 0.0
        self.stalled: Callable[[float], None] = lambda _seconds: None

    def __call__(self) -> float:
        """Now; never less than before."""
        now = self._clock()
        silence_s = now - self._beat
        if silence_s >= STALL_S:
            self.skipped_s += silence_s + ROUND_S
            self._beat = now
            self.stalled(silence_s)
        self._last = max(self._last, now - self.skipped_s)
        return self._last

    def beat(self) -> None:
        """The process runs."""
        self()
        self._beat = self._clock()
