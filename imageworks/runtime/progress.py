"""When each model was last asked for something and last heard: the traces that its health is judged by.

Owns two times per model. Whoever grants says `asked`, whoever passes bytes of an engine on says `heard` (once per
piece: one dictionary write). Judges nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Progress:
    """Times on the clock `clock` (monotonic seconds)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: dict[str, float] = {}
        self._heard: dict[str, float] = {}

    def asked(self, model: str) -> None:
        """A request goes in now."""
        self._asked[model] = self._clock()

    def heard(self, model: str) -> None:
        """A byte of an answer came now."""
        self._heard[model] = self._clock()

    def forget(self, model: str) -> None:
        """A new life begins."""
        self._asked.pop(model, None)
        self._heard.pop(model, None)

    def quiet_s(self, model: str) -> float | None:
        """Since the last of both; None when there was neither."""
        times = [found for times in (self._asked, self._heard) if (found := times.get(model)) is not None]
        return self._clock() - max(times) if times else None

    def unheard(self, model: str) -> bool:
        """Was something asked after the last byte came?"""
        return model in self._asked and self._asked[model] > self._heard.get(model, float("-inf"))
