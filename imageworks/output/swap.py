"""Putting a folder in place in one step.

Owns the order of system calls that makes a half-written generation impossible: every file is written in a new
folder beside, what is not ours is linked into it, all of it is flushed at once, then both folders change names (renameat2 with
RENAME_EXCHANGE; where the file system has none, two renames that `recover` completes). Judges nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from imageworks.output.survey import PRIVATE
from imageworks.targets.artifact import Artifact

_NEW, _OLD = f"{PRIVATE}new-", f"{PRIVATE}old-"
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
# What renameat2 says where the C library, the kernel or the file system has no exchange.
_NO_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})
# flock on a folder is refused by some network file systems; there two compiles at once are not kept apart.
_NO_LOCK = frozenset({errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
# Where hard links do not exist or are not allowed, what is not ours is copied.
_NO_LINK = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV, errno.ENOSYS})


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` (which exists) against other compiles; waits for them. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCK:
                raise
        yield
    finally:
        os.close(handle)


def recover(out_dir: Path) -> None:
    """Undo what a killed compile left: unfinished folders go, a folder taken away between two renames comes back."""
    for left in sorted(out_dir.glob(f"{PRIVATE}*")):
        place = out_dir / left.name.removeprefix(_OLD)
        if left.name.startswith(_OLD) and not place.exists():
            left.rename(place)
        else:
            shutil.rmtree(left)


def write_file(path: Path, data: bytes, mode: int) -> None:
    """Create `path` with `data`; the umask applies to `mode`. On stable storage only after `flush`. Raises OSError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)


def flush(folder: Path) -> None:
    """Bring all that was written to the file system of `folder` to stable storage, in one call (syncfs(2)).

    Two hundred files cost one wait instead of two hundred. Raises OSError.
    """
    import ctypes  # noqa: PLC0415 - not for a generation that is as it should be

    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None:
        os.sync()
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if call(handle) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(handle)


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Write `path` anew in one step. Raises OSError; then nothing has changed."""
    new = path.with_name(f"{_NEW}{path.name}")
    new.unlink(missing_ok=True)
    try:
        write_file(new, data, mode)
        flush(path.parent)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(folder: Path) -> None:
    """Bring the names in `folder` to stable storage. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def stage(place: Path, files: Iterable[Artifact], foreign: Iterable[str]) -> Path:
    """Make the new folder for `place` beside it, with `files` and links to the `foreign` paths of the old one.

    Raises OSError; then the new folder is gone again.
    """
    new = place.with_name(f"{_NEW}{place.name}")
    try:
        new.mkdir()
        for path in foreign:
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            _keep(place / path, new / path)
        for file in files:
            (new / file.path).parent.mkdir(parents=True, exist_ok=True)
            write_file(new / file.path, file.text.encode(), file.mode)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return new


def _keep(old: Path, new: Path) -> None:
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copy2(old, new, follow_symlinks=False)


def put(new: Path, place: Path) -> None:
    """Let the folder `new` take the name `place`; what had it is removed. Raises OSError."""
    if not place.exists():
        new.rename(place)
    else:
        try:
            exchange(new, place)
            old = new
        except OSError as error:
            if error.errno not in _NO_EXCHANGE:
                raise
            old = place.with_name(f"{_OLD}{place.name}")
            place.rename(old)
            new.rename(place)
        shutil.rmtree(old)
    sync(place.parent)


def exchange(one: Path, other: Path) -> None:
    """Let two paths change names in one step (renameat2(2), Linux). Raises OSError, ENOSYS where there is none."""
    import ctypes  # noqa: PLC0415 - as in `flush`

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(one))
