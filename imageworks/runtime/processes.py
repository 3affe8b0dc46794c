"""Processes of this machine: who is meant, what belongs together, and how it ends.

Owns the identity of a process (pid and start time, within one boot), its tree also across sessions, the marks that the
launcher and `lease run` leave in the environment, and ending what is left. Reads /proc; a signal goes through a pidfd,
so that it never reaches a stranger who got the number. `end` blocks up to its bounds: run it in a thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from imageworks import locations
from imageworks.runtime.leases import Holder

PROC = Path("/proc")
LEASE_MARK = "IMAGEWORKS_LEASE"
"""Environment variable that `lease run` gives its command: the lease's id."""
KILL_WAIT_S = 5.0
"""Longest wait for the kernel to end a killed process; what stays is in an uninterruptible call."""
_STATE, _PARENT, _START = 0, 1, 19
"""Places in /proc/PID/stat after the name (proc(5), fields 3, 4 and 22)."""


@dataclass(frozen=True, slots=True)
class Process:
    """One running process. `start` is in clock ticks since boot."""

    pid: int
    parent: int
    start: int

    @property
    def holder(self) -> Holder:
        """Its identity."""
        return Holder(self.pid, self.start)


def look(pid: int) -> Process | None:
    """The process `pid`; None when there is none, or only a zombie, which holds nothing any more."""
    try:
        fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        if fields[_STATE] in (b"Z", b"X"):
            return None
        return Process(pid, int(fields[_PARENT]), int(fields[_START]))
    except (OSError, IndexError, ValueError):
        return None


def identity(pid: int) -> Holder | None:
    """Who has the number `pid` now."""
    found = look(pid)
    return found.holder if found else None


def alive(holder: Holder) -> bool:
    """Does exactly this process run?"""
    return identity(holder.pid) == holder


@cache
def boot_id() -> str:
    """Changes with every boot of the machine; a recorded pid means nothing in another one."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def everything() -> Mapping[int, Process]:
    """Every process that runs now."""
    pids = (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
    return {found.pid: found for pid in pids if (found := look(pid)) is not None}


def tree(pid: int, among: Mapping[int, Process] | None = None) -> tuple[Holder, ...]:
    """The process and all that it and its children started, the process first; empty when it is gone."""
    processes = everything() if among is None else among
    if pid not in processes:
        return ()
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    found, todo = [], [pid]
    while todo:
        found.append(processes[todo[0]].holder)
        todo += children.get(todo.pop(0), ())
    return tuple(found)


def ancestors(pid: int) -> Iterator[int]:
    """`pid`, its parent and so on."""
    seen = set[int]()
    while pid > 0 and pid not in seen:
        seen.add(pid)
        yield pid
        found = look(pid)
        pid = found.parent if found else 0


def environment(pid: int) -> Mapping[str, str]:
    """The environment that the process was started with; empty where we may not read it."""
    try:
        words = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(word.decode(errors="replace").partition("=")[::2] for word in words if b"=" in word)


def marked(marks: Mapping[str, str]) -> tuple[Holder, ...]:
    """Every process whose environment says all of `marks`: what escaped from its tree into another session as well.

    We ourselves and those we come from are never among them.
    """
    ours = frozenset(ancestors(os.getpid()))
    words = [f"{name}={value}".encode() for name, value in marks.items()]
    found = []
    for pid in (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()):
        with contextlib.suppress(OSError):
            text = (PROC / str(pid) / "environ").read_bytes()
            # one pass over the bytes first: splitting every environment of the machine would cost ten times as much
            if pid not in ours and all(word in text for word in words) and set(words) <= set(text.split(b"\0")):
                found.append(identity(pid))
    return tuple(holder for holder in found if holder is not None)


def recorded(stack: Path) -> Mapping[str, Holder]:
    """What the launcher says it started, by program, and that still runs."""
    found = {}
    for path in locations.run_dir(stack).glob("*.started.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            word = json.loads(path.read_bytes())
            holder = Holder(int(word["pid"]), int(word["start"]))
            if word["boot"] == boot_id() and alive(holder):
                found[path.name.removesuffix(".started.json")] = holder
    return found


def left_of(stack: Path, program: str) -> tuple[Holder, ...]:
    """Every process of a program of the stack, also what left its tree and what outlived its supervisor."""
    marks = {"IMAGEWORKS_STACK": str(locations.absolute(stack, ".")), "IMAGEWORKS_PROGRAM": program}
    known = recorded(stack).get(program)
    return tuple(dict.fromkeys([*(tree(known.pid) if known else ()), *marked(marks)]))


def send(holder: Holder, number: signal.Signals) -> bool:
    """Signal exactly this process; False when it is gone. Raises PermissionError."""
    with contextlib.suppress(ProcessLookupError), _pidfd(holder) as handle:
        signal.pidfd_send_signal(handle, number)
        return True
    return False


@contextlib.contextmanager
def _pidfd(holder: Holder) -> Iterator[int]:
    handle = os.pidfd_open(holder.pid)
    try:
        if not alive(holder):  # the handle holds the number, so what is true now stays true
            raise ProcessLookupError
        yield handle
    finally:
        os.close(handle)


def end(find: Callable[[], Iterable[Holder]], grace_s: float) -> tuple[Holder, ...]:
    """End what `find` names: SIGTERM, after `grace_s` SIGKILL; looks again until nothing new is found.

    Returns who could not be ended: not ours to end, or stuck in the kernel.
    """
    found = dict.fromkeys(find())
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILL_WAIT_S)):
        until = time.monotonic() + wait_s
        while left := [holder for holder in found if alive(holder)]:
            for holder in left:
                with contextlib.suppress(PermissionError):
                    send(holder, number)
            wait_gone(left, until)
            found |= dict.fromkeys(find())
            if time.monotonic() >= until:
                break
    return tuple(holder for holder in found if alive(holder))


def wait_gone(holders: Iterable[Holder], until: float) -> bool:
    """Wait for the end of all of them, up to the monotonic time `until`; True when they are gone."""
    for holder in holders:
        with contextlib.suppress(ProcessLookupError), _pidfd(holder) as handle:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
                return False
    return True
