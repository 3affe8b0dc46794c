"""The one error shape of the proxy, as OpenAI clients expect it.

Owns `ApiError` and its bytes: `{"error": {"message", "type", "code", "param", "hint"}}`. `retry` sets
`x-should-retry`, which the OpenAI SDKs obey: true only where a later try costs no tokens twice.
"""

from __future__ import annotations

import math

import msgspec

from imageworks.runtime.events import Refuse

RETRIED = frozenset({"queue_full", "queue_timeout", "shutting_down"})
TYPES = {
    400: "invalid_request_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    502: "backend_error",
    503: "unavailable_error",
}


class ApiError(Exception):
    """An answer other than success. `message` says what is wrong, `hint` what to do."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        hint: str | None = None,
        retry: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.param, self.hint, self.retry, self.retry_after_s = param, hint, retry, retry_after_s

    def body(self) -> bytes:
        """The JSON text."""
        kind = TYPES.get(self.status, "server_error")
        error = {"message": self.message, "type": kind, "code": self.code, "param": self.param, "hint": self.hint}
        return msgspec.json.encode({"error": error})

    def event(self) -> bytes:
        """The same as one server-sent event, for a stream whose headers are sent."""
        return b"data: " + self.body() + b"\n\n"

    def headers(self) -> dict[str, str]:
        """`x-should-retry` always, `Retry-After` in whole seconds where a time is known."""
        headers = {"x-should-retry": "true" if self.retry else "false"}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        return headers


def refusal(refused: Refuse) -> ApiError:
    """The scheduler's refusal for a client. A later try may help only where the queue refused, not a broken model."""
    status = 429 if refused.code == "queue_full" else 503
    hint = "imageworks logs shows what the model said" if refused.code in ("start_failed", "model_resting") else None
    retry = refused.code in RETRIED
    return ApiError(status, refused.code, refused.reason, hint=hint, retry=retry, retry_after_s=refused.retry_after_s)
