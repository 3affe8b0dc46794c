"""routes.json as a value, and what a model name means in it.

Owns the strict reading of the routing table and the resolution of names: a logical id, an alias, `id:variant`,
`role:x`, or `role:x@profile`. Pure but for `load`, which reads one file. Does not know which models are loaded.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from imageworks.contract import ROUTES_SCHEMA, ContractError, RoleTable, Route, RouteTable, check_schema
from imageworks.runtime.errors import ApiError

ROLE = "role:"


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a name stands for: routes that may answer, best first; `role` is set for `role:x` names."""

    name: str
    routes: tuple[Route, ...]
    role: str | None = None
    contract: RoleTable | None = None


def decode(data: bytes) -> RouteTable:
    """Read routes.json. Raises ContractError with one sentence when this version cannot."""
    try:
        head = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        check_schema("routes.json", msgspec.json.decode(head.get("schema", msgspec.Raw(b"null"))), ROUTES_SCHEMA)
        return msgspec.json.decode(data, type=RouteTable, strict=True)
    except msgspec.MsgspecError as error:
        raise ContractError(f"routes.json cannot be read ({error}); run: imageworks compile") from None


def load(path: Path) -> RouteTable:
    """Read the file. Raises ContractError when it is missing or unreadable."""
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise ContractError(f"{path}: {error.strerror}; run: imageworks compile") from None


def resolve(table: RouteTable, name: str) -> Resolution:
    """Routes for a client's model name. Raises ApiError 404 with close names and the reason where one is known."""
    if name.startswith(ROLE):
        return _resolve_role(table, name)
    if route := _named(table, name) or _variant(table, name):
        return Resolution(name, (route,))
    if name in table.unplaced:
        message = f"model `{name}` is not available on profile {table.profile}: {table.unplaced[name]}"
        raise ApiError(404, "model_not_placed", message, param="model", hint="GET /v1/models lists what is")
    raise ApiError(
        404, "model_not_found", f"No model found: {name}", param="model", hint=close_names(name, known_names(table))
    )


def _named(table: RouteTable, name: str) -> Route | None:
    return table.routes.get(name) or next((route for route in table.routes.values() if name in route.aliases), None)


def _variant(table: RouteTable, name: str) -> Route | None:
    model, _, _ = name.rpartition(":")
    route = _named(table, model)
    return route if route is not None and variant_of(route, name) is not None else None


def variant_of(route: Route, name: str) -> Mapping[str, Any] | None:
    """What the variant sets that a request for `name` asks `route` for; None where it asks for none."""
    model, _, variant = name.rpartition(":")
    return route.variants.get(variant) if model == route.id or model in route.aliases else None


def _resolve_role(table: RouteTable, name: str) -> Resolution:
    role, _, profile = name.removeprefix(ROLE).partition("@")
    if profile and profile != table.profile:
        message = f"`{name}` asks for profile {profile}, but {table.profile} is running"
        raise ApiError(404, "profile_not_running", message, param="model", hint=f"ask for `{ROLE}{role}`")
    contract = role_table(table, role, table.profile)
    routes = tuple(
        table.routes[candidate.model] for candidate in contract.candidates if candidate.model in table.routes
    )
    if not routes:
        raise no_model_for_role(table, role, contract)
    return Resolution(name, routes, role, contract)


def role_table(table: RouteTable, role: str, profile: str) -> RoleTable:
    """The table of a role on a profile. Raises ApiError 404 when either is unknown."""
    roles = table.roles.get(profile)
    if roles is None:
        hint = close_names(profile, table.roles)
        raise ApiError(404, "profile_not_found", f"No profile: {profile}", param="profile", hint=hint)
    found = roles.get(role)
    if found is None:
        raise ApiError(
            404, "role_not_found", f"No model found for role: {role}", param="role", hint=close_names(role, roles)
        )
    return found


def no_model_for_role(table: RouteTable, role: str, contract: RoleTable) -> ApiError:
    """A role that is known but that no model serves here; the hint names those that were left out, and why."""
    reasons = [f"{model}: {reason}" for model, reason in sorted(contract.rejected.items())]
    hint = "; ".join(reasons) or f"served here: {', '.join(_served_roles(table)) or 'no role'}"
    return ApiError(404, "role_not_served", f"No model found for role: {role}", param="role", hint=hint)


def _served_roles(table: RouteTable) -> list[str]:
    return sorted(role for role, contract in table.roles.get(table.profile, {}).items() if contract.candidates)


def known_names(table: RouteTable) -> list[str]:
    """Every name a client may ask for."""
    aliases = [alias for route in table.routes.values() for alias in route.aliases]
    variants = [f"{route.id}:{variant}" for route in table.routes.values() for variant in route.variants]
    return [*table.routes, *aliases, *variants, *(ROLE + role for role in _served_roles(table))]


def close_names(name: str, known: Iterable[str]) -> str:
    """`did you mean …` with up to three close names, else all names that exist."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.55)
    # a bare role name is the likeliest slip where a model was asked for
    close = [f"{ROLE}{name}"] * (f"{ROLE}{name}" in names) + close
    if close:
        return f"did you mean {' or '.join(f'`{item}`' for item in close)}?"
    return f"there is: {', '.join(names)}" if names else "there is none"
