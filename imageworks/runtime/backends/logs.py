"""A program's log, from where its life began, and the line that says why it ended.

Owns `LifeLog` (remembers the file's size at start, so that an older death is not blamed) and `root_cause`.
"""

from __future__ import annotations

import re
from pathlib import Path

TAIL_BYTES = 64 << 10

_PREFERRED = (
    re.compile(r"^imageworks: error: (?P<cause>.+)$"),  # our launcher: missing weights, program not found
    re.compile(r"^error: (?P<cause>.+)$"),  # our llama server's own words
    re.compile(
        r"^(?:\d[\d.]*\s+)?E\s+(?P<cause>.+)$|^.* E (?P<cause2>.+)$"
    ),  # llama.cpp's error level; the first says why
)
_VLLM_PREFIX = re.compile(r"^(?:\([\w ]+pid=\d+\) )?(?:ERROR \d\d-\d\d [\d:]+ (?:\[[^\]]+\] )?)?")
_ERROR = re.compile(r"\b[A-Z]\w*(?:Error|Exception)\b: |\berror: ", re.ASCII)
_VAGUE = re.compile(r"(Engine core initialization failed|See root cause above)")


class LifeLog:
    """The log file of one program; `mark` at each start."""

    def __init__(self, path: Path) -> None:
        self._path, self._begin = path, 0

    def mark(self) -> None:
        """A new life begins here."""
        self._begin = self._size()

    def text(self) -> str:
        """What was printed since `mark`, at most the last TAIL_BYTES; all of the tail when the file was rotated."""
        size = self._size()
        begin = self._begin if self._begin <= size else 0
        try:
            with self._path.open("rb") as file:
                file.seek(max(begin, size - TAIL_BYTES))
                return file.read(TAIL_BYTES).decode(errors="replace")
        except OSError:
            return ""

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0


def root_cause(log: str) -> str | None:
    r"""The line that best says why a program ended.

    >>> root_cause("0.00.1 I loading\n0.00.2 E failed to open GGUF file\nRuntimeError: Failed to init server")
    'failed to open GGUF file'
    """
    lines = _lines(log)
    return error_line(log) or (lines[-1] if lines else None)


def error_line(log: str) -> str | None:
    """As `root_cause`, but None where no line speaks of an error."""
    lines = _lines(log)
    for pattern in _PREFERRED:
        for line in lines:
            if match := pattern.match(line):
                return next(group for group in match.groups() if group)
    return _last_error(lines)


def _lines(log: str) -> list[str]:
    return [line.strip() for line in log.splitlines() if line.strip()]


def _last_error(lines: list[str]) -> str | None:
    """The last error line that is not only a pointer to an earlier one, without a logger's prefix."""
    errors = [_VLLM_PREFIX.sub("", line) for line in lines if _ERROR.search(line)]
    telling = [line for line in errors if not _VAGUE.search(line)]
    return next(reversed(telling or errors), None)
