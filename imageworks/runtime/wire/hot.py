"""Which requests can take the fast path.

Owns `Hot`: the judgement is the slow path's own (`access`, `request`, `Proxy.judge`, the scheduler), asked in the same
order. A request that it would refuse, or that has to wait, is not refused here but given to the slow path with its
bytes as they came, so that every refusal is said and recorded in one place.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from imageworks.contract import Route
from imageworks.runtime.access import check_json, check_local, request_id
from imageworks.runtime.clients import today
from imageworks.runtime.elide import Body
from imageworks.runtime.endpoints import Endpoint
from imageworks.runtime.errors import ApiError
from imageworks.runtime.journal import Journal
from imageworks.runtime.request import parse, shape
from imageworks.runtime.wire.exchange import Client, Exchange
from imageworks.runtime.wire.head import Head
from imageworks.runtime.wire.upstream import Address, Pool, address

if TYPE_CHECKING:
    from imageworks.runtime.proxy import Proxy

LOG = logging.getLogger(__name__)
ENDPOINTS: Mapping[bytes, Endpoint] = {
    b"/v1/chat/completions": "chat/completions",
    b"/v1/completions": "completions",
    b"/v1/embeddings": "embeddings",
}
Way = tuple[Address, bytes]
"""Where an engine is, and the part of a request's head that is always the same."""


class Hot:
    """The fast path of one proxy, with its connections to engines."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy, self.pool = proxy, Pool(proxy.active)
        self._ways: dict[tuple[str, Endpoint], Way | None] = {}
        self._numbers = itertools.count()

    def offer(self, client: Client, head: Head, body: Body) -> Exchange | None:
        """Begin an exchange; None, with nothing changed, where the request needs the slow path."""
        endpoint, proxy = ENDPOINTS.get(head.target), self._proxy
        if endpoint is None or not head.plain or head.method != b"POST" or proxy.ending:
            return None
        try:
            check_local(head.host, head.origin, keyed=proxy.clients.required)
            check_json(head.content_type, page=head.origin is not None or head.from_page)
            asker = proxy.clients.identify(head.authorization, today()) if proxy.clients.required else None
            journal = Journal(request_id(head.request_id))
            request = parse(endpoint, body)
            chosen = proxy.judge(request, journal, asker)
            route = chosen.routes[chosen.names[0]]
            way = self._way(route, endpoint)
            if way is None or not proxy.plain(request, chosen):
                return None
            job = proxy.job_of(chosen, request, journal, chosen.routes)
            shaped = shape(request, route, job.contract)
            proxy.begin(journal, asker)
        except Exception as error:  # whatever it is, it is answered and logged on the slow path
            if not isinstance(error, ApiError):
                LOG.warning("the fast path stumbled: %r", error)
            return None
        ticket = f"{journal.record_id}#{next(self._numbers)}"
        if proxy.drive.try_acquire(ticket, chosen.names) is None:
            proxy.undo(journal)
            return None
        journal.granted, journal.warm = time.monotonic(), True
        until = job.until
        exchange = Exchange(
            proxy, self.pool, client, job, journal, ticket, route, shaped, max(0.1, until - journal.begin), until
        )
        exchange.begin(*way)
        return exchange

    def _way(self, route: Route, endpoint: Endpoint) -> Way | None:
        """Where a route leads, where the fast path can go there."""
        key = (route.url, endpoint)
        if key not in self._ways:
            found = address(route.url)
            self._ways[key] = None if found is None else (found[0], _begin(*found, endpoint))
        return self._ways[key]


def _begin(where: Address, path: str, endpoint: Endpoint) -> bytes:
    host = f"[{where[0]}]" if ":" in where[0] else where[0]
    return (
        f"POST {path}/v1/{endpoint} HTTP/1.1\r\nHost: {host}:{where[1]}\r\n"
        "Content-Type: application/json\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
    ).encode("ascii")
