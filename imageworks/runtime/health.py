"""Is a model well: a pure judgement over looks at it.

Owns the hysteresis (FALL bad looks in a row end a life, RISE good ones make it healthy again, so alternating looks end
nothing), what counts as a good look, when a canary is worth a token, and when to look again. A health endpoint alone
proves little: vLLM's may answer while the engine stands still (vllm#39863), llama.cpp's may be blocked while it works
(ik_llama.cpp#1210). No clock, no I/O; times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["unknown", "healthy", "suspect", "dead"]
Answering = Literal["ok", "failing", "silent", "absent"]

FALL, RISE = 3, 2
FAST_S = 2.0
"""Pause between looks while the last ones do not agree."""
STALL_S = 120.0
"""Requests in flight and not one byte for so long: more than any one step of an engine should take."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a model.

    `quiet_s`: how long ago the last byte of an answer came or the last request went in, None when there was neither.
    `unheard`: the last request ended without a single byte. `canary`: a token came (True), did not come (False), was
    not asked for or cannot be asked for (None).
    """

    answering: Answering
    note: str = ""
    inflight: int = 0
    quiet_s: float | None = None
    unheard: bool = False
    canary: bool | None = None

    @property
    def works(self) -> bool:
        """Requests are in flight and bytes came not long ago."""
        return self.inflight > 0 and self.quiet_s is not None and self.quiet_s < STALL_S

    @property
    def stalled(self) -> bool:
        """Requests are in flight and nothing came of them for long."""
        return self.inflight > 0 and not self.works


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the looks so far say. `reason` says what was wrong last, empty for nothing."""

    verdict: Verdict = "unknown"
    bad: int = 0
    good: int = 0
    reason: str = ""


def wants_canary(vitals: Vitals, seen: Seen) -> bool:
    """A token is asked for only where the endpoint is well and something else is odd; never to a model that just works."""
    if seen.answering != "ok" or seen.works:
        return False
    return seen.stalled or seen.unheard or vitals.verdict == "suspect"


def problem(seen: Seen) -> str | None:
    """What is wrong with this look; empty when it says nothing either way; None when it is good."""
    if seen.canary is True:
        return None
    if seen.answering in ("failing", "absent"):
        return seen.note or f"its health endpoint is {seen.answering}"
    if seen.answering == "silent":
        # blocked while it works is not death; blocked with nothing to do, or for too long, is
        return "" if seen.works else seen.note or "its health endpoint is silent"
    if seen.canary is False:
        return "its health endpoint answers, but it computes no token"
    return "" if seen.stalled else None


def judge(vitals: Vitals, seen: Seen) -> Vitals:
    """The vitals after one more look. `dead` is final for a life."""
    wrong = problem(seen)
    if vitals.verdict == "dead" or wrong == "":
        return vitals
    if wrong is None:
        good = vitals.good + 1
        well = good >= RISE or vitals.verdict in ("unknown", "healthy")
        return Vitals("healthy" if well else "suspect", 0, good, "" if well else vitals.reason)
    bad = vitals.bad + 1
    return Vitals("dead" if bad >= FALL else "suspect", bad, 0, wrong)


def pause_s(vitals: Vitals, interval_s: float) -> float:
    """When to look again: at the interval while all is well, soon while it is not."""
    return min(interval_s, FAST_S) if vitals.verdict in ("unknown", "suspect") else interval_s


def patience_s(interval_s: float) -> float:
    """Longest wait for a canary's token: two intervals, between 2 s and a minute."""
    return min(60.0, max(2.0, 2 * interval_s))
