"""What every request passes before a handler sees it.

Owns the middleware of aiohttp's handlers: request id, the checks of `access`, and the error shape for everything that
is raised.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from imageworks.runtime.access import check_local, request_id
from imageworks.runtime.errors import ApiError, too_large

LOG = logging.getLogger(__name__)
REQUEST_ID = web.RequestKey("request_id", str)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Check, handle, and turn every failure into the one error shape."""
    request[REQUEST_ID] = number = request_id(request.headers.get("x-request-id", ""))
    try:
        check_local(request.headers.get("Host", ""), request.headers.get("Origin"))
        response = await handler(request)
    except ApiError as error:
        response = answer(error)
    except web.HTTPException as error:
        response = answer(_from_aiohttp(error, request))
    except Exception:
        LOG.exception("request %s failed", number)
        response = answer(ApiError(500, "internal_error", f"a bug of ImageWorks; the log has it under {number}"))
    if not response.prepared:
        response.headers["x-request-id"] = number
    return response


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
