"""Keys of remote servers, and of clients: read once when the proxy starts, shown to nobody.

Owns which routes have a usable key, the header that carries it, and its removal from what such a server answers with an
error (some quote the key they were given). A route whose key is missing is left out; the others serve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from imageworks import credentials
from imageworks.contract import Route, RouteTable
from imageworks.runtime.clients import Client, Clients, client
from imageworks.runtime.errors import ApiError
from imageworks.runtime.table import Resolution

HIDDEN = b"[key]"


@dataclass(frozen=True, slots=True)
class Keys:
    """Values by route id, never part of a representation; `missing` says of a route why its key cannot be used."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    missing: Mapping[str, str] = field(default_factory=dict)

    def headers(self, route: Route) -> Mapping[str, str]:
        """What a request to `route` carries."""
        value = self.values.get(route.id)
        return {"Authorization": f"Bearer {value}"} if value is not None else {}

    def without(self, body: bytes, route: Route) -> bytes:
        """`body` as a client may see it."""
        value = self.values.get(route.id)
        return body if value is None else body.replace(value.encode(), HIDDEN)

    def usable(self, resolution: Resolution) -> Resolution:
        """Only the routes that need no key or have one. Raises ApiError 503 where none is left."""
        here = tuple(route for route in resolution.routes if route.id not in self.missing)
        if here:
            return replace(resolution, routes=here) if len(here) < len(resolution.routes) else resolution
        hint = "; or: ".join(dict.fromkeys(self.missing[route.id] for route in resolution.routes))
        message = f"the key of the server behind `{resolution.name}` is not set on this machine"
        raise ApiError(503, "secret_missing", message, param="model", hint=hint)


def read_clients(table: RouteTable, stack: Path, environ: Mapping[str, str]) -> Clients:
    """The keys that clients show; of each only a hash is kept."""
    found: list[Client] = []
    missing: dict[str, str] = {}
    for key in table.proxy.keys:
        try:
            found.append(client(key, credentials.read(key.secret, stack, environ)))
        except credentials.SecretError as error:
            missing[key.name] = str(error)
    return Clients(found, missing)


def read(table: RouteTable, stack: Path, environ: Mapping[str, str]) -> Keys:
    """The keys of all routes, from where the table says; `stack` is the folder that relative files count from."""
    values: dict[str, str] = {}
    missing: dict[str, str] = {}
    for route in table.routes.values():
        if route.key is None:
            continue
        try:
            value = credentials.read(route.key, stack, environ)
        except credentials.SecretError as error:
            missing[route.id] = str(error)
            continue
        if value.isascii() and value.isprintable() and " " not in value:
            values[route.id] = value
        else:
            missing[route.id] = f"secret {route.key.name} holds characters that no HTTP header can carry"
    return Keys(values, missing)
