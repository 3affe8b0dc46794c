"""Keys of clients: who asks, what they may ask for, and how much.

Owns identification (only hashes are kept; every key is compared, in constant time), scopes (roles, models, admin) and
quotas (rate, tokens a day, requests at once). Pure but for `today`: `now` is a monotonic time in seconds. Without
declared keys everybody who reaches the proxy is the machine's own user; with one, everybody shows a key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from imageworks.contract import ClientKey
from imageworks.runtime.errors import ApiError

BEARER = "bearer "
HINT = "Authorization: Bearer KEY"


@dataclass(frozen=True, slots=True)
class Client:
    """One key without its value."""

    key: ClientKey
    digest: bytes = field(repr=False)
    expires: date | None = None

    @property
    def name(self) -> str:
        """The name in the stack, for logs and records."""
        return self.key.name

    def check(self, role: str | None, models: Sequence[str]) -> None:
        """Raise ApiError 403 unless the role, or every model where none was asked for, is in its scope."""
        if role is not None:
            if self.key.roles is not None and role not in self.key.roles:
                raise self._out_of_scope(f"role `{role}`", self.key.roles)
        elif self.key.models is not None and not set(models) <= set(self.key.models):
            raise self._out_of_scope(f"model `{models[0]}`", self.key.models)

    def check_admin(self) -> None:
        """Raise ApiError 403 unless it may change what runs."""
        if not self.key.admin:
            raise ApiError(403, "not_admin", f"key `{self.name}` may not change what runs", hint="may: {admin: true}")

    def _out_of_scope(self, what: str, allowed: Sequence[str]) -> ApiError:
        hint = (
            f"it may ask for {', '.join(f'`{name}`' for name in allowed)}" if allowed else "it may ask for roles only"
        )
        return ApiError(403, "out_of_scope", f"key `{self.name}` may not ask for {what}", param="model", hint=hint)


def shown_key(authorization: str | None, own: str | None) -> str | None:
    """The key as OpenAI's clients show it, in Authorization, or as Anthropic's do, in `x-api-key`."""
    return f"Bearer {own}" if authorization is None and own is not None else authorization


def today() -> date:
    """The day that quotas and expiry count by: UTC."""
    return datetime.now(UTC).date()


def client(key: ClientKey, value: str) -> Client:
    """The client of a declared key, of whose value only a hash is kept."""
    return Client(key, _digest(value), date.fromisoformat(key.expires) if key.expires else None)


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()


@dataclass(slots=True)
class _Use:
    """What a key has used."""

    tokens: int = 0
    day: date | None = None
    at_once: int = 0
    allowance: float = 0.0
    """Requests it may make now; refilled with time."""
    seen: float | None = None


class Clients:
    """All declared keys and what they have used; `missing` are those whose value is not on this machine."""

    def __init__(self, clients: Sequence[Client] = (), missing: Mapping[str, str] | None = None) -> None:
        self._clients, self.missing = tuple(clients), dict(missing or {})
        self._uses: dict[str, _Use] = {}
        self._know()

    def _know(self) -> None:
        for client in self._clients:
            self._uses.setdefault(client.name, _Use(allowance=client.key.rate_per_minute or 0.0))

    def use(self, others: Clients) -> None:
        """Other keys are declared now; what a key of the same name has used still counts."""
        self._clients, self.missing = others._clients, others.missing
        self._know()

    @property
    def required(self) -> bool:
        """Is a key wanted of everybody?"""
        return bool(self._clients or self.missing)

    def identify(self, authorization: str | None, day: date) -> Client | None:
        """Whose key it is; None where no keys are declared. Raises ApiError 401."""
        if not self.required:
            return None
        if authorization is None or authorization[: len(BEARER)].lower() != BEARER:
            raise ApiError(401, "key_missing", "this proxy wants a key", hint=HINT)
        shown = _digest(authorization[len(BEARER) :].strip())
        found = [one for one in self._clients if hmac.compare_digest(one.digest, shown)]
        if not found:
            raise ApiError(401, "key_unknown", "no such key", hint=HINT)
        if found[0].expires is not None and day > found[0].expires:
            raise ApiError(401, "key_expired", f"key `{found[0].name}` expired after {found[0].expires}")
        return found[0]

    def begin(self, client: Client | None, now: float, day: date) -> None:
        """Count a request that begins. Raises ApiError 429 with the number that is used up and when to come back."""
        if client is None:
            return
        use, key = self._uses[client.name], client.key
        if use.day != day:
            use.day, use.tokens = day, 0
        if key.concurrency is not None and use.at_once >= key.concurrency:
            raise self._used_up(client, f"{use.at_once} requests at once, {key.concurrency} allowed", 1.0)
        if key.tokens_per_day is not None and use.tokens >= key.tokens_per_day:
            raise self._used_up(client, f"{use.tokens} tokens today, {key.tokens_per_day} allowed", 3600.0)
        if key.rate_per_minute is not None:
            self._refill(use, key.rate_per_minute, now)
            if use.allowance < 1:
                wait_s = (1 - use.allowance) * 60 / key.rate_per_minute
                raise self._used_up(client, f"{key.rate_per_minute:g} requests a minute allowed", wait_s)
            use.allowance -= 1
        use.at_once += 1

    def _refill(self, use: _Use, rate: float, now: float) -> None:
        elapsed_s = 0.0 if use.seen is None else max(0.0, now - use.seen)
        use.allowance, use.seen = min(rate, use.allowance + elapsed_s * rate / 60), now

    def _used_up(self, client: Client, told: str, retry_after_s: float) -> ApiError:
        return ApiError(429, "quota", f"key `{client.name}`: {told}", retry=True, retry_after_s=retry_after_s)

    def undo(self, client: Client | None) -> None:
        """A request that began did not come to anything, and begins again another way."""
        if client is not None:
            use = self._uses[client.name]
            use.at_once -= 1
            use.allowance += 1

    def end(self, client: Client | None, tokens: int | None) -> None:
        """Count a request that is over."""
        if client is not None:
            use = self._uses[client.name]
            use.at_once -= 1
            use.tokens += tokens or 0
