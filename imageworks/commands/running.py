"""The supervisord of one stack: is it there, what does it run, start, stop, end it.

Owns the control connection of the verbs (XML-RPC over the stack's unix socket, through supervisor's own
client) and the places it uses. Processes that outlived a killed supervisord are found by the
environment the launcher gives them (`IMAGEWORKS_STACK`, `IMAGEWORKS_PROGRAM`), and only those.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import xmlrpc.client
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, cast

from supervisor.xmlrpc import Faults, SupervisorTransport

from imageworks import locations
from imageworks.values import dataclass

STOP_WAIT_S = 45.0
"""Longest wait for supervisord to end: above its stopwaitsecs (30 s), which ends every program by SIGKILL."""


class NotRunningError(Exception):
    """No supervisord answers on the stack's socket."""


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """One program as supervisord sees it. `started` is the epoch second of its start, 0 when it never ran."""

    name: str
    state: str
    pid: int
    started: int
    description: str


@dataclass(frozen=True, slots=True)
class Reread:
    """Names of programs that differ between supervisord's file and what it holds."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


class Running:
    """The supervisord of the stack in `folder`. Every call raises NotRunningError when there is none.

    And PermissionError where there may be one that this user must not reach: saying "not running" would be a guess.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = locations.control_socket(folder)

    def log(self, program: str) -> Path:
        """The log file of a program (or of `supervisord`)."""
        return locations.program_log(self.folder, program)

    def is_up(self) -> bool:
        """True when a supervisord listens on the socket; a socket file left behind by a dead one does not count."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except PermissionError as error:
                raise self._refused(error) from None
            except OSError:
                return False
        return True

    def pid(self) -> int:
        """Process id of supervisord."""
        return int(self._call("getPID"))

    def programs(self) -> tuple[ProgramInfo, ...]:
        """All programs, by name."""
        rows = self._call("getAllProcessInfo")
        return tuple(
            ProgramInfo(row["name"], row["statename"], row["pid"], row["start"], row["description"])
            for row in sorted(rows, key=lambda row: str(row["name"]))
        )

    def program(self, name: str) -> ProgramInfo:
        """One program; KeyError when supervisord does not know it."""
        for info in self.programs():
            if info.name == name:
                return info
        raise KeyError(name)

    def start(self, name: str) -> None:
        """Start a program without waiting; one that already runs is left alone."""
        try:
            self._call("startProcess", name, False)  # False: do not wait for startsecs
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise

    def stop(self, name: str) -> None:
        """Stop a program and wait until it is gone; one that does not run, or is not known, is left alone."""
        try:
            self._call("stopProcess", name, True)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == Faults.BAD_NAME:
                return
            if fault.faultCode != Faults.NOT_RUNNING:
                raise
        end = time.monotonic() + STOP_WAIT_S
        while self.program(name).state == "STOPPING" and time.monotonic() < end:
            time.sleep(0.05)  # somebody else asked before us: supervisord calls that "not running"

    def signal(self, name: str, signal_name: str) -> None:
        """Send a signal (`HUP`) to a program that runs. Raises xmlrpc.client.Fault when it does not."""
        self._call("signalProcess", name, signal_name)

    def reread(self) -> Reread:
        """Let supervisord read its file again; nothing is applied. Raises xmlrpc.client.Fault when it refuses the file."""
        ((added, changed, removed),) = self._call("reloadConfig")
        return Reread(tuple(added), tuple(changed), tuple(removed))

    def remove(self, name: str) -> None:
        """Forget a program that does not run."""
        self._call("removeProcessGroup", name)

    def add(self, name: str) -> None:
        """Take over a program of the file that was read last."""
        self._call("addProcessGroup", name)

    def shutdown(self) -> bool:
        """Stop every program and supervisord itself; True when it is gone within STOP_WAIT_S."""
        pid = self.pid()
        with contextlib.suppress(NotRunningError):
            self._call("shutdown")
        return wait_gone(pid, STOP_WAIT_S)

    def _call(self, method: str, *arguments: object) -> Any:
        # supervisor's transport wants an http address and ignores it: the socket decides
        server = xmlrpc.client.ServerProxy(
            "http://127.0.0.1",
            transport=cast("xmlrpc.client.Transport", SupervisorTransport(None, None, f"unix://{self.socket}")),
        )
        try:
            return getattr(server.supervisor, method)(*arguments)
        except PermissionError as error:
            raise self._refused(error) from None
        except (OSError, HTTPException, xmlrpc.client.ProtocolError) as error:
            raise NotRunningError(str(error)) from None
        finally:
            server("close")()

    def _refused(self, error: PermissionError) -> PermissionError:
        return PermissionError(error.errno, error.strerror, str(self.socket))


def wait_gone(pid: int, seconds: float) -> bool:
    """Wait until the process `pid` is gone (or a zombie of ours); False when it is still there after `seconds`."""
    end = time.monotonic() + seconds
    while alive(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def alive(pid: int) -> bool:
    """True while `pid` runs; a zombie holds nothing any more and counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def survivors(folder: Path) -> Iterator[tuple[int, str]]:
    """Processes (pid, program) that the launcher started for this stack and that still run."""
    mark = f"IMAGEWORKS_STACK={folder}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "environ").read_bytes().split(b"\0")
            program = next((word[19:].decode() for word in words if word.startswith(b"IMAGEWORKS_PROGRAM=")), None)
            if program is not None and mark in words and alive(int(entry.name)):
                yield int(entry.name), program


def sweep(folder: Path) -> tuple[str, ...]:
    """End the survivors: SIGTERM, then SIGKILL after five seconds. Returns `program (pid)` of each."""
    found = tuple(survivors(folder))
    for pid, _ in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    for pid, _ in found:
        if not wait_gone(pid, 5.0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            wait_gone(pid, 5.0)
    return tuple(f"{program} ({pid})" for pid, program in found)
