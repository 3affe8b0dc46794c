"""What is different between the routing table in force and another one, and what of it can be done in a running proxy.

Owns that judgement; pure. A model is replaced where its process was begun otherwise than the new table or its exec
spec says; everything else of a route counts from the next request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from imageworks.contract import ExecSpec, Route, RouteTable
from imageworks.runtime.residency import managed


@dataclass(frozen=True, slots=True)
class LastReload:
    """What came of the last reload, the `number`th of this process; `failed`: why the old table is still in force."""

    number: int = 0
    failed: str | None = None
    restart_needed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Life:
    """What a model's present process was begun with; `spec` None where nobody left word of it."""

    route: Route
    spec: ExecSpec | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """`table` is the new one with what only a restart can change left as it is; `restart_needed` says what that is.

    `changed` are models with another route or exec spec, `outdated` those of them whose process has to go.
    """

    table: RouteTable
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    outdated: frozenset[str]
    restart_needed: tuple[str, ...]


def obstacles(old: RouteTable, new: RouteTable) -> tuple[str, ...]:
    """Why the new table cannot be taken over at all by a proxy that serves the old one."""
    found = []
    if new.profile != old.profile:
        found.append(f"it is of profile {new.profile}, and {old.profile} is running")
    elif {gpu.slot for gpu in new.gpus} != {gpu.slot for gpu in old.gpus}:
        found.append("it is for other GPUs")
    for name, route in new.routes.items():
        before = old.routes.get(name)
        if before is not None and managed(before) != managed(route):
            whose = ("a server elsewhere", "a model that is started here")
            found.append(f"`{name}` becomes {whose[managed(route)]} and is {whose[managed(before)]}")
    return tuple(found)


def delta(old: RouteTable, new: RouteTable, lives: Mapping[str, Life], specs: Mapping[str, ExecSpec]) -> Delta:
    """The difference. `lives` are those of models that run, `specs` the exec specs that belong to `new`, by program."""
    outdated = frozenset(
        name for name, life in lives.items() if name in new.routes and not _as_begun(life, new.routes[name], specs)
    )
    both = [name for name in new.routes if name in old.routes]
    table, restart_needed = _kept(old, new)
    return Delta(
        table=table,
        added=tuple(name for name in new.routes if name not in old.routes),
        removed=tuple(name for name in old.routes if name not in new.routes),
        changed=tuple(name for name in both if new.routes[name] != old.routes[name] or name in outdated),
        outdated=outdated,
        restart_needed=restart_needed,
    )


def _as_begun(life: Life, route: Route, specs: Mapping[str, ExecSpec]) -> bool:
    spec = specs.get(route.program or "")
    same_spec = life.spec is None or spec is None or life.spec == spec
    return same_spec and _binding(life.route) == _binding(route)


def _binding(route: Route) -> tuple[object, ...]:
    """What a process is begun with and cannot change."""
    return route.backend, route.program, route.url, route.served_name, route.context, route.sleep


def _kept(old: RouteTable, new: RouteTable) -> tuple[RouteTable, tuple[str, ...]]:
    """The new table with the old values of what is bound to the process, and their names with both values."""
    proxy = replace(new.proxy, host=old.proxy.host, port=old.proxy.port)
    table = replace(new, proxy=proxy, roots=old.roots, leases=replace(new.leases, mode=old.leases.mode))
    pairs = {
        "proxy.bind": (f"{old.proxy.host}:{old.proxy.port}", f"{new.proxy.host}:{new.proxy.port}"),
        "leases.mode": (old.leases.mode, new.leases.mode),
        **{f"roots.{name}": (_root(old, name), _root(new, name)) for name in sorted({*old.roots, *new.roots})},
    }
    return table, tuple(f"{name}: {was} -> {wanted}" for name, (was, wanted) in pairs.items() if was != wanted)


def _root(table: RouteTable, name: str) -> str:
    root = table.roots.get(name)
    return "default" if root is None else f"${root.env}, else {root.default}" if root.env else root.default
