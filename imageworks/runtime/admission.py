"""May this request be served, and by which models: judged before anything is started.

Owns the contract of a request: capability, number of images, and weights that are really there. Pure but for
the question whether a needed path exists, which the caller answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from imageworks.contract import Need, Route, RouteTable
from imageworks.runtime.endpoints import ENDPOINTS
from imageworks.runtime.errors import ApiError
from imageworks.runtime.ollama.request import obstacle
from imageworks.runtime.request import Request
from imageworks.runtime.table import ROLE, Resolution

Missing = Callable[[Route], tuple[Need, ...]]
"""Needs of a route that are not on this machine's disk, paths expanded."""


def able(table: RouteTable, resolution: Resolution, request: Request) -> tuple[Route, ...]:
    """Routes that can do what is asked, here or not. Raises ApiError 400."""
    wanted = ENDPOINTS[request.endpoint].capability or ("vision" if request.images else None)
    found = tuple(route for route in resolution.routes if wanted is None or wanted in route.capabilities)
    if not found:
        param = "messages" if wanted == "vision" else "model"
        message = f"`{resolution.name}` has no {wanted} capability"
        raise ApiError(400, "capability_missing", message, param=param, hint=_who_can(table, str(wanted)))
    return _serving(table, resolution, found, request)


def _serving(
    table: RouteTable, resolution: Resolution, routes: tuple[Route, ...], request: Request
) -> tuple[Route, ...]:
    """Those whose kind of engine has the endpoint."""
    kinds = ENDPOINTS[request.endpoint].backends
    found = tuple(route for route in routes if route.backend in kinds)
    if not found:
        told = f"`{resolution.name}` is served by {routes[0].backend}, which has no /v1/{request.endpoint}"
        others = ", ".join(f"`{route.id}`" for route in table.routes.values() if route.backend in kinds)
        hint = f"served for {others}" if others else f"it needs a model of {' or '.join(sorted(kinds))}"
        raise ApiError(400, "endpoint_not_served", told, param="model", hint=hint)
    return found


def told(routes: Mapping[str, Route], request: Request) -> Mapping[str, Route]:
    """Those of `routes` whose engine can be told all that is asked. Raises ApiError 400 that names what none can."""
    problems = {model: _obstacle(route, request) for model, route in routes.items() if route.backend == "ollama"}
    found = {model: route for model, route in routes.items() if problems.get(model) is None}
    for problem in problems.values():
        if problem is not None and not found:
            raise problem
    return found


def _obstacle(route: Route, request: Request) -> ApiError | None:
    asked = {name: value for name, value in request.fields.items() if name not in route.strip}
    return obstacle(request.endpoint, asked)


def _who_can(table: RouteTable, capability: str) -> str:
    models = [route.id for route in table.routes.values() if capability in route.capabilities]
    roles = [
        ROLE + role
        for role, contract in table.roles.get(table.profile, {}).items()
        if capability in contract.requires and contract.candidates
    ]
    names = ", ".join(f"`{name}`" for name in [*sorted(roles), *models])
    return f"ask for {names}" if names else f"no model of profile {table.profile} has {capability}"


def check_images(resolution: Resolution, routes: Iterable[Route], request: Request) -> None:
    """Raise ApiError 400 for more images than are taken in one request, after what history drops."""
    limits = [route.images_max for route in routes if "vision" in route.capabilities]
    if resolution.contract is not None and resolution.contract.images_max is not None:
        limits = [min(limit, resolution.contract.images_max) for limit in limits]
    if request.images and request.images > max(limits, default=0):
        message = f"{request.images} images, but `{resolution.name}` takes {max(limits, default=0)} in one request"
        raise ApiError(
            400, "too_many_images", message, param="messages", hint="send fewer images, or raise images.max of a role"
        )


def here(name: str, routes: Mapping[str, Route], missing: Missing) -> Mapping[str, Route]:
    """Those of `routes` whose weights are there. Raises ApiError 503 where none is, with the commands that get them."""
    found = {model: route for model, route in routes.items() if not missing(route)}
    if not found:
        raise weights_missing(name, [need for route in routes.values() for need in missing(route)])
    return found


def weights_missing(name: str, needs: Iterable[Need]) -> ApiError:
    """The 503 for weights that nobody fetched; the hints are the commands that do."""
    needs = list(dict.fromkeys(needs))
    paths = ", ".join(need.path for need in needs)
    hint = "; or: ".join(dict.fromkeys(need.hint for need in needs))
    return ApiError(
        503, "weights_missing", f"the weights for `{name}` are not on this machine: {paths}", param="model", hint=hint
    )
