"""Doctor: supervisord, its socket, and processes that nobody supervises.

Owns the findings about process control. Ends nothing: what it finds is told with the command that ends it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from imageworks.commands.examine.finding import Finding, Level
from imageworks.commands.running import NotRunningError, Running, survivors
from imageworks.runtime import processes

SOCKET_BYTES = 107
"""Longest path of a unix socket (sockaddr_un.sun_path, without the end mark)."""
ASK_S = 5.0
_BAD: Mapping[str, Level] = {"FATAL": "error", "BACKOFF": "warning", "UNKNOWN": "warning"}


def check(folder: Path) -> Iterator[Finding]:
    """The socket, the programs, the leftovers."""
    running = Running(folder)
    length = len(str(running.socket).encode())
    if length > SOCKET_BYTES:
        todo = "move the stack to a shorter path"
        yield Finding(
            "supervisor", "error", f"its socket path has {length} bytes, {SOCKET_BYTES} fit: {running.socket}", todo
        )
        return
    supervised: tuple[int, ...] = ()
    try:
        up = running.is_up()
    except PermissionError:
        todo = "ask as the user who started it"
        yield Finding("supervisor", "error", f"this user must not reach {running.socket}", todo)
        return
    if not up:
        stale = "; a socket of a dead one is left" if running.socket.exists() else ""
        yield Finding("supervisor", "ok", f"does not run{stale}", "start it: imageworks up" if stale else "")
    else:
        try:
            with bounded():
                found = tuple(programs(running))
                supervised = tuple(holder.pid for holder in processes.tree(running.pid()))
            yield from found
        except NotRunningError as error:
            todo = "it hangs or is not ours: look at `imageworks logs supervisord`, then end it by its pid"
            yield Finding("supervisor", "error", f"listens on {running.socket} and does not answer: {error}", todo)
            return
    yield from leftovers(folder, supervised)


@contextmanager
def bounded() -> Iterator[None]:
    """Inside, no socket is waited on for longer than ASK_S: a hung supervisor is a finding, not a hang of ours."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ASK_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def programs(running: Running) -> Iterator[Finding]:
    """Programs that supervisord gave up or lost."""
    rows = running.programs()
    for row in rows:
        level = _BAD.get(row.state)
        if level is not None:
            found = f"{row.name} is {row.state}: {row.description}"
            yield Finding("programs", level, found, f"imageworks logs {row.name}")
    up = sum(row.state == "RUNNING" for row in rows)
    yield Finding("supervisor", "ok", f"pid {running.pid()}, {up} of {len(rows)} programs run")


def leftovers(folder: Path, supervised: tuple[int, ...]) -> Iterator[Finding]:
    """Processes of this stack that no supervisord of it holds: they keep ports and memory."""
    for pid, program in survivors(folder):
        if not of_unit(pid, program) and not any(parent in supervised for parent in processes.ancestors(pid)):
            found = f"{program} (pid {pid}) runs without its supervisor"
            yield Finding("leftovers", "error", found, "imageworks down ends it")


def of_unit(pid: int, program: str) -> bool:
    """Does systemd hold it, in the cgroup of the program's unit?"""
    try:
        return f"/{program}.service" in Path(f"/proc/{pid}/cgroup").read_text("ascii")
    except (OSError, UnicodeError):
        return False
