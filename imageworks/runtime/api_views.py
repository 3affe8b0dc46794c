"""GET /openapi.json.

Owns the one handler, which makes the document at its first call and keeps its bytes.
"""

from __future__ import annotations

from functools import cache

import msgspec
from aiohttp import web

from imageworks import __version__


async def describe(_request: web.Request) -> web.Response:
    """What this proxy serves, as OpenAPI 3.1."""
    return web.Response(body=_text(), content_type="application/json")


@cache
def _text() -> bytes:
    from imageworks.runtime.openapi import document  # noqa: PLC0415 - it takes 30 ms that no start needs

    return msgspec.json.encode(document(__version__))
