"""What every request passes before a handler sees it.

Owns the middleware: request id, the loopback checks of Host and Origin (a page that a browser shows must not
reach the models through a rebound name or a cross-site form), and the error shape for everything that is raised.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import uuid
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

from imageworks.runtime.errors import ApiError

LOG = logging.getLogger(__name__)
REQUEST_ID = web.RequestKey("request_id", str)
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Check, handle, and turn every failure into the one error shape."""
    given = request.headers.get("x-request-id", "")
    request[REQUEST_ID] = request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
    try:
        check_local(request.headers.get("Host", ""), request.headers.get("Origin"))
        response = await handler(request)
    except ApiError as error:
        response = answer(error)
    except web.HTTPException as error:
        response = answer(_from_aiohttp(error, request))
    except Exception:
        LOG.exception("request %s failed", request_id)
        response = answer(ApiError(500, "internal_error", f"a bug of ImageWorks; the log has it under {request_id}"))
    if not response.prepared:
        response.headers["x-request-id"] = request_id
    return response


def check_local(host: str, origin: str | None) -> None:
    """Raise ApiError 403 unless both name this machine."""
    if not is_local(host):
        raise ApiError(
            403, "host_refused", f"the Host header names `{host}`", hint="use http://127.0.0.1 or http://localhost"
        )
    if origin is not None and not is_local(urlsplit(origin).netloc):
        raise ApiError(403, "origin_refused", f"requests from pages of `{origin}` are refused")


def is_local(authority: str) -> bool:
    """Is `host[:port]` a loopback address or localhost?"""
    try:
        name = urlsplit(f"//{authority}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def answer(error: ApiError) -> web.Response:
    """The response of an error."""
    return web.Response(
        status=error.status, body=error.body(), content_type="application/json", headers=error.headers()
    )


def _from_aiohttp(error: web.HTTPException, request: web.Request) -> ApiError:
    if error.status == web.HTTPRequestEntityTooLarge.status_code:
        return too_large(request.content_length)
    message = f"{request.method} {request.path}: {error.reason}"
    return ApiError(error.status, error.reason.lower().replace(" ", "_"), message)


def too_large(length: int | None) -> ApiError:
    """The 413."""
    size = "the body" if length is None else f"a body of {length} bytes"
    return ApiError(
        413, "body_too_large", f"{size} is over the limit", hint="send smaller images, or raise proxy.limits.body"
    )
