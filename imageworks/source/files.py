"""Reading source files by name, relative to the stack's folder.

Owns the seam to the disk (`Files`), its two adapters, and what is said when a file cannot be read. Writes nothing,
follows no name out of the folder's own tree on its own initiative, and never opens pipes or devices.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from imageworks.diagnostics.model import Diagnostic, Fix, Label, Severity
from imageworks.source.text import SourceFile

LARGEST_BYTES = 4 << 20
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff]")
"""What YAML 1.2 does not call printable, and a byte order mark in the middle."""


class Files(Protocol):
    """A folder of source files."""

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`. Raises OSError (FileNotFoundError, IsADirectoryError, EFBIG, …)."""
        ...

    def names(self, folder: str) -> tuple[str, ...]:
        """Names of all files below `folder`, sorted; empty when there is no such folder. Raises OSError."""
        ...


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK)  # so that a pipe does not block


class DiskFiles:
    """Files below `root` on this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str) -> bytes:
        """See `Files.read`."""
        with open(self._root / name, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", name)
            if found.st_size > LARGEST_BYTES:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
            return file.read(LARGEST_BYTES + 1)

    def names(self, folder: str) -> tuple[str, ...]:
        """See `Files.names`."""
        top = self._root / folder
        found = [path.relative_to(self._root).as_posix() for path in top.rglob("*") if path.is_file()]
        return tuple(sorted(found))


class MemoryFiles:
    """Files held in memory, for tests and for stacks that are made rather than read."""

    def __init__(self, files: Mapping[str, str | bytes]) -> None:
        self._files = {name: data.encode() if isinstance(data, str) else data for name, data in files.items()}

    def read(self, name: str) -> bytes:
        """See `Files.read`."""
        if name not in self._files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        if len(self._files[name]) > LARGEST_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
        return self._files[name]

    def names(self, folder: str) -> tuple[str, ...]:
        """See `Files.names`."""
        return tuple(sorted(name for name in self._files if name.startswith(f"{folder}/")))


def sha256(data: bytes) -> str:
    """Hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def unreadable(name: str, error: OSError, named: Label | None = None) -> Diagnostic:
    """What to tell about a file that could not be read; `named` is where another file includes it."""
    if named is not None:
        message = f"the included file {name} cannot be read: {(error.strerror or str(error)).lower()}"
        fix = Fix("a path counts from the folder of the file that names it; write it there, or remove it here")
        return Diagnostic("IW310", message, named, fixes=(fix,))
    if isinstance(error, FileNotFoundError):
        return Diagnostic(
            "IW110",
            f"{name} is missing",
            None,
            fixes=(Fix("imageworks init writes a small one; or name another file"),),
        )
    if error.errno == errno.EFBIG:
        return Diagnostic(
            "IW112",
            f"{name} is larger than {LARGEST_BYTES >> 20} MiB",
            None,
            notes=("nobody writes that by hand; is it the right file?",),
        )
    if isinstance(error, IsADirectoryError):
        return Diagnostic(
            "IW111", f"{name} is a folder", None, fixes=(Fix(f"name the file in it: -f {name}/stack.yaml"),)
        )
    reason = error.strerror or str(error)
    return Diagnostic(
        "IW111", f"{name} cannot be read: {reason.lower()}", None, fixes=(Fix(f"look at its rights: ls -l {name}"),)
    )


def decode(name: str, data: bytes) -> tuple[SourceFile | None, tuple[Diagnostic, ...]]:
    """The text of `data`; None with IW105 when it is not UTF-8 text without control characters."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return None, (
            _not_text(name, data[: error.start].decode("utf-8-sig"), f"byte 0x{data[error.start]:02x} is not UTF-8"),
        )
    control = _CONTROL.search(text)
    if control is not None:
        return None, (_not_text(name, text[: control.start()], f"control character 0x{ord(control[0]):02x}"),)
    return SourceFile(name, text), ()


def _not_text(name: str, before: str, reason: str) -> Diagnostic:
    span = SourceFile(name, before + " ").span(len(before), len(before) + 1)
    return Diagnostic(
        "IW105",
        f"{name} is not UTF-8 text",
        Label(span, reason),
        Severity.ERROR,
        fixes=(Fix("save it as UTF-8 in your editor"),),
    )
