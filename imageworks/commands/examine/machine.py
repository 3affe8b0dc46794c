"""Doctor: disk space, limits of this user, and what the interpreter must be.

Owns the findings about the machine itself, and the floors below which they are faults. Writes nothing.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from imageworks.commands.examine.finding import Finding, Level

GIB = 1 << 30
STATE_ERROR, STATE_WARNING = 128 << 20, 1 * GIB
"""Free bytes for records, logs and the lease file: below the first new leases are refused soon."""
STORE_WARNING = 10 * GIB
"""Free bytes for weights: less than one middling model."""
FILES_ERROR, FILES_WARNING = 512, 2048
"""Open files: a request takes two, and 1,000 streams at once are ordinary."""
SHM_WARNING = 1 * GIB
"""Bytes of /dev/shm: tensor parallelism passes tensors there; containers often give 64 MiB."""


def check(places: Mapping[str, Path]) -> Iterator[Finding]:
    """Everything; `places` are the folders `state`, `store` and `models`."""
    for name, place in places.items():
        yield disk(name, place)
    yield files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield shared_memory(Path("/dev/shm"))  # noqa: S108 - the place itself is what is looked at
    if sys.flags.optimize:
        yield Finding(
            "python", "error", "runs with -O, which takes checks away that aiohttp relies on", "unset PYTHONOPTIMIZE"
        )


def existing(place: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return place if place.exists() or place == place.parent else existing(place.parent)


def disk(name: str, place: Path) -> Finding:
    """Room and permission in one folder."""
    there = existing(place)
    free = shutil.disk_usage(there).free
    if not os.access(there, os.W_OK):
        level: Level = "warning" if name == "models" else "error"
        return Finding(
            "disk", level, f"{name}: {there} is not writable", f"give this user the right to write in {there}"
        )
    found = f"{name}: {free / GIB:.1f} GiB free at {there}"
    if name == "state" and free < STATE_ERROR:
        return Finding("disk", "error", found, "make room: leases and records cannot be written when it is full")
    if free < (STATE_WARNING if name == "state" else STORE_WARNING):
        return Finding("disk", "warning", found, "make room before the next download or a long run")
    return Finding("disk", "ok", found)


def files(limit: int) -> Finding:
    """How many files this user's processes may open."""
    if limit == resource.RLIM_INFINITY or limit >= FILES_WARNING:
        return Finding("limits", "ok", f"{'unlimited' if limit == resource.RLIM_INFINITY else limit} open files")
    todo = "raise it: ulimit -n 65536, or LimitNOFILE= of the unit"
    level: Level = "error" if limit < FILES_ERROR else "warning"
    return Finding("limits", level, f"only {limit} open files: about {limit // 2} requests at once", todo)


def shared_memory(place: Path) -> Finding:
    """Room for what GPU workers share."""
    try:
        total = shutil.disk_usage(place).total
    except OSError:
        return Finding("shared memory", "warning", f"{place} is missing", "mount it: tensor parallelism needs it")
    if total < SHM_WARNING:
        found = f"{place} has {total >> 20} MiB"
        return Finding(
            "shared memory", "warning", found, "enlarge it (docker: --shm-size) before using several GPUs for a model"
        )
    return Finding("shared memory", "ok", f"{total / GIB:.1f} GiB")
