"""The findings of the writer: what is in the way of the files, and what to do.

Owns the texts of IW601 to IW606. A full disk or a folder without permission is the user's to mend, so it is a
`Diagnostic` like any other and never a traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from imageworks.diagnostics.model import Diagnostic, Fix

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_SHOWN = 12


def _finding(code: str, message: str, notes: Iterable[str], fix: str) -> Diagnostic:
    return Diagnostic(code=code, message=message, primary=None, notes=tuple(notes), fixes=(Fix(fix),))


def _list(paths: tuple[str, ...]) -> tuple[str, ...]:
    rest = len(paths) - _SHOWN
    return (*paths[:_SHOWN], f"and {rest} more") if rest > 0 else paths


def edited(paths: tuple[str, ...]) -> Diagnostic:
    """IW601: generated files whose bytes we did not write."""
    return _finding(
        "IW601",
        f"{len(paths)} generated file{'s were' if len(paths) > 1 else ' was'} edited by hand; nothing was written",
        _list(paths),
        "move the change into stack.yaml, then: imageworks compile --overwrite",
    )


def in_the_way(paths: tuple[str, ...]) -> Diagnostic:
    """IW602: files we did not write where ours belong."""
    return _finding(
        "IW602",
        f"{len(paths)} file{'s' if len(paths) > 1 else ''} that imageworks did not write {'stand' if len(paths) > 1 else 'stands'} where its own belong; nothing was written",
        _list(paths),
        "move them away, or replace them: imageworks compile --overwrite",
    )


def failed(folder: str, error: OSError) -> Diagnostic:
    """IW603: the system refused to write; what was there before is still there."""
    where = str(error.filename or folder)
    reason = (error.strerror or str(error)).lower()
    if error.errno in _FULL:
        fix = "free some space (or quota), then compile again"
    elif error.errno in _FORBIDDEN:
        fix = f"make {folder} writable for this user, or choose another folder with --out"
    else:
        fix = "mend that, then compile again"
    return _finding("IW603", f"cannot write {folder}: {reason}", (where, "what was there before is unchanged"), fix)


def socket_too_long(path: str, size: int, limit: int) -> Diagnostic:
    """IW604: the control socket's path does not fit an address."""
    return _finding(
        "IW604",
        f"the path of the control socket is {size - limit} byte{'s' if size - limit > 1 else ''} too long",
        (path, f"{size} bytes; a Unix socket address holds 107, and supervisord needs 8 of them for a moment"),
        "move the stack to a folder with a shorter path",
    )


def unusable_folder(path: str, found: str) -> Diagnostic:
    """IW605: supervisord cannot carry the name of the stack's folder."""
    return _finding(
        "IW605",
        f"the stack's folder has {found} in its path",
        (ascii(path), 'supervisord reads %, " and \\ in its own way and cannot carry control characters'),
        "rename the folder",
    )


def newer(folder: str, reason: str) -> Diagnostic:
    """IW606: the folder was written by a newer version."""
    return _finding(
        "IW606", f"{folder}: {reason}", (), "update this installation, or compile with --out into another folder"
    )
