"""A request that may be served.

Owns the values between a name and the engine; plain data for both speeds of the proxy. They are msgspec's Structs, made
in a tenth of a dataclass's time, because one is made for every request.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from imageworks.contract import ImageRule, RoleTable, Route
from imageworks.runtime.request import Request
from imageworks.runtime.table import Resolution

DEADLINE_S = 600.0
"""To the first byte of an answer, for a request by model name; a role states its own deadline."""


class Chosen(msgspec.Struct, frozen=True):
    """Who could answer a kind of request by a name, best first, and how long it may take in all.

    `reasons`: some of them think aloud. `normalises`: calls that some of them write as text are made calls. `direct`: the
    fast path can reach the first of them.
    """

    resolution: Resolution
    routes: Mapping[str, Route]
    names: tuple[str, ...]
    patience_s: float
    reasons: bool
    direct: bool
    normalises: bool = False


class Job(msgspec.Struct, frozen=True, gc=False):
    """By which routes, best first, and how long it may take: `queue_until` to wait, `until` in all (monotonic clock).

    `lease` is the id and token of the lease that the request shows, `passed` the headers of it that go to the engine, `events`
    how it wants to be told that it waits. `told` are headers of the answer that say what was
    changed; `fetch` is set where an image has to be fetched first, `shrink` where one has to be made smaller.
    """

    id: str
    request: Request
    routes: Mapping[str, Route]
    contract: RoleTable | None
    queue_until: float
    until: float
    lease: tuple[str, int] | None = None
    passed: Mapping[str, str] = {}
    events: bool = False
    told: Mapping[str, str] = {}
    shrink: ImageRule | None = None
    fetch: ImageRule | None = None
