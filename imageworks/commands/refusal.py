"""What this machine refuses: no right, no room, a name too long. Not a bug of ours, and no finding in stack.yaml.

Owns which errors of the system those are, and what a person does about each. Verbs that can say more catch theirs
themselves; the others let it pass, and the command line ends with this sentence and exit code 1.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

_RIGHT = "look at its rights and its owner: ls -ld {path}"
_ROOM = "make room: df -h {path}"
_REMEDIES: Mapping[int | None, str] = {
    errno.EACCES: _RIGHT,
    errno.EPERM: _RIGHT,
    errno.EROFS: "the disk is mounted read-only: findmnt -T {path}",
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EIO: "the disk reports a fault: dmesg | tail",
    errno.ENAMETOOLONG: "choose a shorter one",
    errno.EMFILE: "allow more open files: ulimit -n 4096",
    errno.ENFILE: "this machine has no open files left: sysctl fs.file-max",
}


def told(error: OSError) -> tuple[str, str] | None:
    """What is wrong and what to do about it; None when `error` is not of this kind."""
    remedy = _REMEDIES.get(error.errno)
    if remedy is None:
        return None
    name = error.filename if isinstance(error.filename, str | Path) else None
    what = f"{(error.strerror or str(error)).lower()}{f': {name}' if name else ''}"
    return what, remedy.format(path=name or ".")
