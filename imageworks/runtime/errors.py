"""The one error shape of the proxy, as OpenAI clients expect it.

Owns `ApiError` and its bytes: `{"error": {"message", "type", "code", "param", "hint"}}`. `retry` sets
`x-should-retry`, which the OpenAI SDKs obey: true only where a later try costs no tokens twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from imageworks.runtime.events import DenyCode, LeaseDenied, Refuse, RefuseCode

RETRIED = frozenset({"queue_full", "queue_timeout", "shutting_down", "lease_blocks"})
REFUSED: Mapping[RefuseCode, int] = {"queue_full": 429, "lease_blocks": 423, "stale_token": 410, "model_removed": 404}
"""Status of a refusal; 503 for the others."""
DENIED: Mapping[DenyCode, int] = {
    "invalid": 400,
    "not_owner": 403,
    "unknown_lease": 404,
    "busy": 409,
    "stale_token": 410,
    "impossible": 422,
    "gpu_lost": 503,
    "not_reconciled": 503,
    "shutting_down": 503,
    "state_unwritable": 503,
}
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    410: "conflict_error",
    413: "invalid_request_error",
    414: "invalid_request_error",
    415: "invalid_request_error",
    417: "invalid_request_error",
    422: "invalid_request_error",
    423: "conflict_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
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

    def event(self, *, anthropic: bool = False) -> bytes:
        """The same as one server-sent event, for a stream whose headers are sent; Anthropic's clients know it by its name."""
        if anthropic:
            error = {"type": TYPES.get(self.status, "api_error"), "message": self.message}
            return b"event: error\ndata: " + msgspec.json.encode({"type": "error", "error": error}) + b"\n\n"
        return b"data: " + self.body() + b"\n\n"

    def headers(self) -> dict[str, str]:
        """`x-should-retry` always, `Retry-After` in whole seconds where a time is known."""
        headers = {"x-should-retry": "true" if self.retry else "false"}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        return headers


def refusal(refused: Refuse) -> ApiError:
    """The scheduler's refusal for a client. A later try may help only where the queue refused, not a broken model."""
    status = REFUSED.get(refused.code, 503)
    hint = "imageworks logs shows what the model said" if refused.code in ("start_failed", "model_resting") else None
    retry, after_s = refused.code in RETRIED, refused.retry_after_s
    never = after_s is None or math.isinf(after_s)
    return ApiError(
        status, refused.code, refused.reason, hint=hint, retry=retry, retry_after_s=None if never else after_s
    )


def denial(denied: LeaseDenied) -> ApiError:
    """The scheduler's answer to a lease call that it does not do."""
    code = "gpu_busy" if denied.code == "busy" else denied.code
    retry = denied.code in {"busy", "state_unwritable", "not_reconciled", "shutting_down"}
    after_s = denied.retry_after_s if denied.retry_after_s is not None or not retry else 1.0
    return ApiError(DENIED[denied.code], code, denied.reason, retry=retry, retry_after_s=after_s)


def too_large(length: int | None) -> ApiError:
    """The 413; `length` None where it was not announced."""
    size = "the body" if length is None else f"a body of {length} bytes"
    return ApiError(
        413, "body_too_large", f"{size} is over the limit", hint="send smaller images, or raise proxy.limits.body"
    )
