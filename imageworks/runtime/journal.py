"""One request's story while it happens, and the record it ends in.

Owns `Journal` (mutable, one per request, used by its handler only). Times are taken from the monotonic clock,
`ts` from the UTC clock. Knows nothing of HTTP but status numbers.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from imageworks.contract import Route, RouteTable
from imageworks.runtime.errors import ApiError
from imageworks.runtime.records import Failure, Images, Outcome, Params, RequestRecord, Times, Tokens
from imageworks.runtime.request import Request, Shaped
from imageworks.runtime.table import Resolution
from imageworks.runtime.tail import Facts

_OUTCOMES: dict[str, Outcome] = {
    "queue_timeout": "timeout",
    "deadline_exceeded": "timeout",
    "weights_missing": "refused",
}
_SERVER_FAULT = 500


@dataclass(slots=True)
class Journal:
    """What is known of a request so far."""

    record_id: str
    begin: float = field(default_factory=time.monotonic)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    role: str | None = None
    route: Route | None = None
    images: int | None = None
    params: Params = field(default_factory=Params)
    granted: float | None = None
    sent: float | None = None
    first: float | None = None
    warm: bool | None = None
    facts: Facts = field(default_factory=Facts)
    complete: bool = False
    """The whole answer went to the client, also when the connection is not closed in order."""
    recorded: bool = False

    def asked(self, request: Request) -> None:
        """The body is read."""
        self.images = request.images

    def resolved(self, resolution: Resolution) -> None:
        """The name is known."""
        self.role = resolution.role

    def forwarded(self, route: Route, shaped: Shaped) -> None:
        """The request goes to the engine now."""
        self.route, self.sent = route, time.monotonic()
        self.params = msgspec.convert(shaped.params, Params, strict=False)

    def first_byte(self) -> None:
        """The engine's answer begins; later calls change nothing."""
        self.first = self.first or time.monotonic()

    def record(self, table: RouteTable, error: ApiError | None, outcome: Outcome | None = None) -> RequestRecord:
        """The line for the log; `outcome` overrides what follows from `error` and the facts."""
        outcome = outcome or self._outcome(error)
        times = self._times(time.monotonic())
        return RequestRecord(
            ts=self.started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            record_id=self.record_id,
            stack_hash=table.plan_hash,
            bundle_hash=table.bundle_hash,
            profile=table.profile,
            role=self.role,
            model=self.route.id if self.route else None,
            backend=self.route.backend if self.route else None,
            outcome=outcome,
            success=outcome in ("ok", "truncated"),
            params=self.params,
            images=Images(n=self.images),
            tokens=self._tokens(),
            t=times,
            out_tok_per_s=_rate(self.facts.tokens_out, times),
            finish_reason=self.facts.finish_reason,
            error=Failure(error.code, error.status) if error else None,
            warm=self.warm,
        )

    def _outcome(self, error: ApiError | None) -> Outcome:
        if error is not None:
            kind = "backend_error" if error.status >= _SERVER_FAULT else "invalid"
            return _OUTCOMES.get(error.code, "refused" if error.retry else kind)  # type: ignore[arg-type]
        return "truncated" if self.facts.finish_reason == "length" else "ok"

    def _tokens(self) -> Tokens:
        facts = self.facts
        known = facts.tokens_in is not None or facts.tokens_out is not None
        return Tokens(
            facts.tokens_in,
            facts.tokens_cached,
            facts.tokens_out,
            facts.tokens_reasoning,
            "usage" if known else "unknown",
        )

    def _times(self, end: float) -> Times:
        return Times(
            queue_ms=self._since_begin(self.granted),
            ttft_proxy_ms=self._since_begin(self.first),
            ttft_engine_ms=None if self.first is None or self.sent is None else _ms(self.first - self.sent),
            total_ms=_ms(end - self.begin),
        )

    def _since_begin(self, moment: float | None) -> float | None:
        return None if moment is None else _ms(moment - self.begin)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _rate(tokens_out: int | None, times: Times) -> float | None:
    """Tokens per second after the first, None below two tokens (research/prompts-telemetry.md 5.1)."""
    if tokens_out is None or tokens_out < 2 or times.ttft_proxy_ms is None or times.total_ms is None:  # noqa: PLR2004 - first and last
        return None
    span_ms = times.total_ms - times.ttft_proxy_ms
    return round((tokens_out - 1) * 1000 / span_ms, 2) if span_ms > 0 else None
