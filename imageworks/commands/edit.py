"""Changing a file that a person wrote: read whole, replaced at once, never when it changed meanwhile.

Owns the reading of one source file for an edit and its atomic replacement (a temporary file beside it, its rights
kept, one rename). Decides nothing about what is written.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from imageworks.values import dataclass

if TYPE_CHECKING:
    from imageworks.diagnostics.model import Diagnostic
    from imageworks.source.text import SourceFile

MARK = "\ufeff".encode()
"""A byte order mark, which `SourceFile` leaves out."""


@dataclass(frozen=True, slots=True)
class Before:
    """A file as it was read: its bytes, and its text without a byte order mark."""

    data: bytes
    source: SourceFile


class UnreadableError(Exception):
    """The file cannot be read as text; `diagnostics` say why."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...], texts: Mapping[str, str]) -> None:
        super().__init__(diagnostics[0].message)
        self.diagnostics = diagnostics
        self.texts = texts


def read_source(file: Path) -> Before:
    """The text of `file`. Raises UnreadableError."""
    from imageworks.source.files import DiskFiles, decode, unreadable

    try:
        data = DiskFiles(file.absolute().parent).read(file.name)
    except OSError as error:
        raise UnreadableError((unreadable(str(file), error),), {}) from error
    source, found = decode(str(file), data)
    if source is None:
        raise UnreadableError(found, {str(file): data.decode("utf-8", "replace")})
    return Before(data, source)


def replace(file: Path, before: bytes, after: bytes) -> None:
    """Put `after` where `before` was, at once; a link stays a link. Raises OSError, also when the file has changed."""
    target = file.resolve()
    if target.read_bytes() != before:
        raise OSError(None, "it was changed meanwhile", str(file))
    rights = target.stat().st_mode & 0o7777
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with open(handle, "wb") as new:  # noqa: PTH123 - from a descriptor
            new.write(after)
            new.flush()
            os.fchmod(handle, rights)
            os.fsync(handle)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
