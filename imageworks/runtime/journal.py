"""One request's story while it happens, and the record it ends in.

Owns `Journal` (mutable, one per request, used by its handler only). Times are taken from the monotonic clock,
`ts` from the UTC clock. Knows nothing of HTTP but status numbers.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import msgspec

from imageworks.contract import Route, RouteTable
from imageworks.runtime.clients import Client
from imageworks.runtime.errors import ApiError
from imageworks.runtime.history import Cut
from imageworks.runtime.progress import Progress
from imageworks.runtime.records import Dropped, Failure, Images, Outcome, Params, RequestRecord, Times, Tokens
from imageworks.runtime.request import Request, Shaped
from imageworks.runtime.table import Resolution
from imageworks.runtime.tail import Facts, Tail, facts_of

_OUTCOMES: dict[str, Outcome] = {
    "queue_timeout": "timeout",
    "deadline_exceeded": "timeout",
    "weights_missing": "refused",
}
_SERVER_FAULT = 500


class Journal(msgspec.Struct):
    """What is known of a request so far. Cheap to keep; all that costs is done in `record`, after the answer."""

    record_id: str
    begin: float = msgspec.field(default_factory=time.monotonic)
    started: float = msgspec.field(default_factory=time.time)
    table: RouteTable | None = None
    """The one in force when it was judged; None where it was not."""
    role: str | None = None
    route: Route | None = None
    images: int | None = None
    shrunk: int | None = None
    cut: Cut | None = None
    tool_calls: int = 0
    """Calls that the model wrote as text."""
    client: Client | None = None
    """Whose key was shown, once the request counts."""
    shaped: Shaped | None = None
    granted: float | None = None
    sent: float | None = None
    first: float | None = None
    end: float | None = None
    warm: bool | None = None
    answer: bytes | Tail | None = None
    """What the engine said: a whole body, or the end of a stream."""
    complete: bool = False
    """The whole answer went to the client, also when the connection is not closed in order."""
    recorded: bool = False
    progress: Progress | None = None
    """Where the model's signs of life are kept."""

    def asked(self, request: Request) -> None:
        """The body is read."""
        self.images = request.images

    def resolved(self, resolution: Resolution) -> None:
        """The name is known."""
        self.role = resolution.role

    def forwarded(self, route: Route, shaped: Shaped) -> None:
        """The request goes to the engine now."""
        self.route, self.shaped, self.sent = route, shaped, time.monotonic()
        if self.progress is not None:
            self.progress.asked(route.id)

    def first_byte(self) -> None:
        """The engine's answer begins; later calls say only that the engine goes on."""
        if self.first is None:
            self.first = time.monotonic()
        if self.progress is not None and self.route is not None:
            self.progress.heard(self.route.id)

    def close(self) -> None:
        """The request is over now."""
        self.recorded, self.end = True, time.monotonic()

    def line(self, table: RouteTable, error: ApiError | None, outcome: Outcome | None = None) -> bytes:
        """The record for the log, as JSON; `outcome` overrides what follows from `error` and the facts.

        A request that was served is written from a template, which takes a third of the time of building the record.
        """
        facts, route, granted, first, sent = self.facts(), self.route, self.granted, self.first, self.sent
        if error is not None or outcome is not None or self.shaped is None or self.end is None:
            return _encode(self.record(table, facts, error, outcome))
        if route is None or granted is None or first is None or sent is None:
            return _encode(self.record(table, facts, error, outcome))
        if self.client or self.cut or self.shrunk or self.tool_calls:
            return _encode(self.record(table, facts, error, outcome))
        begin, cut = self.begin, facts.finish_reason == "length"
        seconds = int(self.started)
        text = _frame(table, self.role, route) % (
            _second(seconds),
            int((self.started - seconds) * 1000),
            self.record_id,
            "truncated" if cut else "ok",
            _encode(msgspec.convert(params, Params, strict=False)).decode()
            if (params := self.shaped.params)
            else _NO_PARAMS,
            self.images,
            "null" if facts.tokens_in is None else facts.tokens_in,
            "null" if facts.tokens_cached is None else facts.tokens_cached,
            "null" if facts.tokens_out is None else facts.tokens_out,
            "null" if facts.tokens_reasoning is None else facts.tokens_reasoning,
            "unknown" if facts.tokens_in is None and facts.tokens_out is None else "usage",
            (granted - begin) * 1000,
            (first - begin) * 1000,
            (first - sent) * 1000,
            (self.end - begin) * 1000,
            "null" if (rate := _rate(facts.tokens_out, self.end - first)) is None else rate,
            _word(facts.finish_reason),
            "true" if self.warm else "false",
        )
        return text.encode()

    def record(
        self, table: RouteTable, facts: Facts, error: ApiError | None, outcome: Outcome | None = None
    ) -> RequestRecord:
        """The record of any request."""
        outcome = outcome or _outcome(error, facts)
        end = time.monotonic() if self.end is None else self.end
        params = self.shaped.params if self.shaped is not None else None
        known = facts.tokens_in is not None or facts.tokens_out is not None
        counts = (facts.tokens_in, facts.tokens_cached, facts.tokens_out, facts.tokens_reasoning)
        return RequestRecord(
            ts=f"{_second(int(self.started))}.{int(self.started % 1 * 1000):03d}Z",
            record_id=self.record_id,
            stack_hash=table.plan_hash,
            bundle_hash=table.bundle_hash,
            profile=table.profile,
            role=self.role,
            model=self.route.id if self.route else None,
            backend=self.route.backend if self.route else None,
            outcome=outcome,
            success=outcome in ("ok", "truncated"),
            params=msgspec.convert(params, Params, strict=False) if params else Params(),
            images=Images(n=self.images, shrunk=self.shrunk),
            client=self.client.name if self.client else None,
            dropped=Dropped(self.cut.dropped, self.cut.dropped_images) if self.cut and self.cut.dropped else None,
            normalised=self.tool_calls or None,
            tokens=Tokens(*counts, "usage" if known else "unknown"),
            t=self._times(end),
            out_tok_per_s=None if self.first is None else _rate(facts.tokens_out, end - self.first),
            finish_reason=facts.finish_reason,
            error=Failure(error.code, error.status) if error else None,
            warm=self.warm,
        )

    def _times(self, end: float) -> Times:
        return Times(
            queue_ms=None if self.granted is None else _ms(self.granted - self.begin),
            ttft_proxy_ms=None if self.first is None else _ms(self.first - self.begin),
            ttft_engine_ms=None if self.first is None or self.sent is None else _ms(self.first - self.sent),
            total_ms=_ms(end - self.begin),
        )

    def facts(self) -> Facts:
        """What the answer said about itself."""
        if self.answer is None:
            return Facts()
        return facts_of(self.answer) if isinstance(self.answer, bytes) else self.answer.facts()


_encode = msgspec.json.Encoder().encode
_NO_PARAMS = _encode(Params()).decode()


@lru_cache(256)
def _frames(hashes: tuple[str, str], profile: str, role: str | None, model: str, backend: str) -> str:
    """The line of a served request with a hole for all that differs; what else there is comes from RequestRecord."""
    make: Any = RequestRecord  # whose fields hold what stands in a hole
    tokens: Any = Tokens
    times: Any = Times
    params: Any = msgspec.Raw(b"\0s")
    word, ms = msgspec.Raw(b'"\0s"'), msgspec.Raw(b"\0.3f")
    line = make(
        ts=msgspec.Raw(b'"\0s.\x0003dZ"'), record_id=word, stack_hash=hashes[0], bundle_hash=hashes[1], profile=profile,
        role=role, model=model, backend=backend, outcome=word, success=True, params=params, images=Images(n=params),
        tokens=tokens(params, params, params, params, word), t=times(ms, None, ms, ms, None, ms), out_tok_per_s=params,
        finish_reason=params, warm=params,
    )  # fmt: skip
    return str(_encode(line).decode().replace("%", "%%").replace("\0", "%"))


def _frame(table: RouteTable, role: str | None, route: Route) -> str:
    return _frames((table.plan_hash, table.bundle_hash), table.profile, role, route.id, route.backend)


@lru_cache(64)
def _word(text: str | None) -> str:
    return _encode(text).decode()


@lru_cache(8)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _outcome(error: ApiError | None, facts: Facts) -> Outcome:
    if error is not None:
        kind = "backend_error" if error.status >= _SERVER_FAULT else "invalid"
        return _OUTCOMES.get(error.code, "refused" if error.retry else kind)  # type: ignore[arg-type]
    return "truncated" if facts.finish_reason == "length" else "ok"


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _rate(tokens_out: int | None, span_s: float) -> float | None:
    """Tokens per second after the first, None below two tokens (research/prompts-telemetry.md 5.1)."""
    if tokens_out is None or tokens_out < 2 or span_s <= 0:  # noqa: PLR2004 - first and last
        return None
    return round((tokens_out - 1) / span_s, 2)
