r"""One source file as text, with the way from a character to its line.

Owns offsets, lines and columns: everything later speaks of spans made here. Offsets count characters of the text
without a byte order mark; lines end at \n, \r\n or \r. Knows nothing of YAML.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field

from imageworks.diagnostics.model import Span

_LINE_END = re.compile(r"\r\n|\n|\r")


def line_starts(text: str) -> tuple[int, ...]:
    r"""Offsets of the first character of every line.

    >>> line_starts("a\r\nb")
    (0, 3)
    """
    return (0, *(match.end() for match in _LINE_END.finditer(text)))


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A named text. `name` is what messages show."""

    name: str
    text: str
    _starts: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", line_starts(self.text))

    def place(self, offset: int) -> tuple[int, int]:
        """(line, column) of `offset`, both from 1."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def span(self, start: int, end: int) -> Span:
        """The span from `start` to before `end`; both are clamped to the text."""
        if not 0 <= start <= end <= len(self.text):
            start = max(0, min(start, len(self.text)))
            end = max(start, min(end, len(self.text)))
        starts = self._starts
        line = bisect_right(starts, start)
        last = bisect_right(starts, end, line - 1)
        return Span(self.name, start, end, line, start - starts[line - 1] + 1, last, end - starts[last - 1] + 1)

    def line_bounds(self, line: int) -> tuple[int, int]:
        """Offsets of the first character of `line` (from 1) and of its end, line end excluded."""
        start = self._starts[line - 1]
        end = self._starts[line] if line < len(self._starts) else len(self.text)
        return start, start + len(self.text[start:end].rstrip("\r\n"))

    @property
    def lines(self) -> int:
        """Number of lines; a text that ends with a line end has an empty last one."""
        return len(self._starts)
