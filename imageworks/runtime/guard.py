"""What every request passes before a handler sees it.

Owns the middleware of aiohttp's handlers: request id, the checks of `access`, the client's key, the audit line of what
changes something, and the error shape for everything that is raised.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from imageworks.runtime.access import check_json, check_local, request_id
from imageworks.runtime.clients import Client, Clients, shown_key, today
from imageworks.runtime.endpoints import ENDPOINTS, paths
from imageworks.runtime.errors import ApiError, too_large

LOG = logging.getLogger(__name__)
REQUEST_ID = web.RequestKey("request_id", str)
CLIENT = web.RequestKey("client", Client)
OPEN = frozenset({"/healthz", "/readyz"})
"""What tells nothing but that the proxy is there: for supervisors, without a key."""
PATHS = frozenset(paths())
FORM_PATHS = frozenset(path for path, name in paths().items() if ENDPOINTS[name].form)
"""What asks a model; every other change is an administrator's."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def guard(clients: Clients) -> Middleware:
    """The middleware of a proxy's handlers; `clients` are those who may ask."""

    @web.middleware
    async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await _guarded(clients, request, handler)

    return checked


async def _guarded(clients: Clients, request: web.Request, handler: Handler) -> web.StreamResponse:
    """Check, handle, and turn every failure into the one error shape."""
    request[REQUEST_ID] = number = request_id(request.headers.get("x-request-id", ""))
    try:
        _check(clients, request)
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


def _check(clients: Clients, request: web.Request) -> None:
    """Where it comes from, whose key it shows, and whether that may change what runs."""
    check_local(request.headers.get("Host", ""), request.headers.get("Origin"), keyed=clients.required)
    if request.path in OPEN:
        return
    if request.method != "GET" and request.path not in FORM_PATHS and request.body_exists:
        page = "Origin" in request.headers or "Sec-Fetch-Site" in request.headers
        check_json(request.headers.get("Content-Type"), page=page)
    shown = shown_key(request.headers.get("Authorization"), request.headers.get("x-api-key"))
    client = clients.identify(shown, today())
    if client is not None:
        request[CLIENT] = client
    if request.method != "GET" and request.path not in PATHS:
        if client is not None:
            client.check_admin()
        LOG.info("audit: %s %s by %s", request.method, request.path, client.name if client else "this machine's user")


def answer(error: ApiError) -> web.Response:
    """The response of an error."""
    return web.Response(
        status=error.status, body=error.body(), content_type="application/json", headers=error.headers()
    )


def _from_aiohttp(error: web.HTTPException, request: web.Request) -> ApiError:
    if error.status == web.HTTPRequestEntityTooLarge.status_code:
        return too_large(request.content_length)
    message = f"{request.method} {request.path}: {error.reason}"
    hint = "GET /openapi.json lists what there is" if error.status in (404, 405) else None
    return ApiError(error.status, error.reason.lower().replace(" ", "_"), message, hint=hint)
