"""Doctor: the ports of the plan, and who has them.

Owns the findings about ports. A port is in order when nobody has it, or a process of this stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from imageworks.commands.examine.finding import Finding
from imageworks.runtime import processes, sockets


def wanted(table: Mapping[str, Any]) -> Iterator[tuple[int, str, str]]:
    """Each port of the plan: number, host, whose it is; servers that are not ours have none."""
    yield int(table["proxy"]["port"]), str(table["proxy"]["host"]), "the proxy"
    for name, route in table["routes"].items():
        where = urlsplit(route["url"])
        if route["program"] and where.port:
            yield where.port, where.hostname or "127.0.0.1", name


def check(folder: Path, table: Mapping[str, Any]) -> Iterator[Finding]:
    """Every port of the plan."""
    ours = {holder.pid for holder in processes.marked({"IMAGEWORKS_STACK": str(folder)})}
    free, used = 0, 0
    for port, host, owner in wanted(table):
        holders = {pid for each in sockets.listeners(port, host) for pid in each.pids}
        if holders & ours:
            used += 1
        elif taken := sockets.who(port, host):
            todo = f"end it, or give {owner} another port ({'proxy.bind' if owner == 'the proxy' else 'pin.port'})"
            yield Finding("ports", "error", f"port {port} of {owner} is taken by {taken}", todo)
        else:
            free += 1
    yield Finding("ports", "ok", f"{used} in use by this stack, {free} free")
