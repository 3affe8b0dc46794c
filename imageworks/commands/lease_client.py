"""Talking to the proxy about leases: one JSON call over http.client, so that asking costs no import.

Owns the address of the proxy and the difference between "it said no" and "it is not there". Retries nothing.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from imageworks.commands import client_key

CALL_S = 5.0
"""Longest wait for an answer that nobody has to wait for."""


class UnreachableError(Exception):
    """Nobody answers at the proxy's address, or the connection broke."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the proxy said. `wait_s` is its Retry-After."""

    status: int
    data: Mapping[str, Any]
    wait_s: float | None = None

    @property
    def good(self) -> bool:
        """Was it done?"""
        return self.status == http.HTTPStatus.OK

    @property
    def code(self) -> str:
        """The error's code, "" without one."""
        return str(self._error.get("code", ""))

    @property
    def text(self) -> str:
        """The error for a person."""
        hint = client_key.HINT if self.status == http.HTTPStatus.UNAUTHORIZED else self._error.get("hint")
        return str(self._error.get("message", f"the proxy answered {self.status}")) + (f"; {hint}" if hint else "")

    @property
    def _error(self) -> Mapping[str, Any]:
        error = self.data.get("error")
        return error if isinstance(error, dict) else {}


class Proxy:
    """The proxy at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._place = urlsplit(url)

    def call(
        self, method: str, path: str, body: Mapping[str, object] | None = None, timeout_s: float = CALL_S
    ) -> Answer:
        """One call. Raises UnreachableError."""
        connection = http.client.HTTPConnection(self._place.hostname or "", self._place.port or 80, timeout=timeout_s)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, client_key.headers())
            response = connection.getresponse()
            data = json.loads(response.read())
            return Answer(response.status, data if isinstance(data, dict) else {}, _seconds(response))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UnreachableError(f"the proxy does not answer at {self.url} ({error})") from None
        finally:
            connection.close()


def _seconds(response: http.client.HTTPResponse) -> float | None:
    text = response.getheader("Retry-After") or ""
    return float(text) if text.isdecimal() else None
