"""A source line and the marks below it, safe for a terminal.

Owns what is cut from a long line, how wide a character is, and that nothing of a source file can move the cursor.
"""

from __future__ import annotations

import unicodedata

WIDEST = 160
_TAB = "    "
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def visible(text: str) -> str:
    """`text` with tabs as four blanks and everything that could steer a terminal as a replacement character."""
    return "".join("\ufffd" if unicodedata.category(char) in _INVISIBLE else char for char in text.replace("\t", _TAB))


def columns(text: str) -> int:
    """Columns that `text` takes: wide East Asian characters two, combining marks none."""
    return sum(_width(char) for char in text)


def _width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def snippet(line: str, start: int, end: int, mark: str) -> tuple[str, str]:
    """The line as shown, and the marks under its characters `start` to before `end` (at least one mark).

    >>> snippet("    bakend: vllm", 4, 10, "^")
    ('    bakend: vllm', '    ^^^^^^')
    """
    left = _left(line, start, end)
    shown = line[left : left + WIDEST]
    head, tail = "…" if left else "", "…" if left + WIDEST < len(line) else ""
    before = head + visible(line[left:start])
    marked = visible(line[start : min(end, left + WIDEST)])
    return f"{head}{visible(shown)}{tail}".rstrip(), " " * columns(before) + mark * max(1, columns(marked))


def _left(line: str, start: int, end: int) -> int:
    """First character to show."""
    if len(line) <= WIDEST or end <= WIDEST:
        return 0
    return max(0, min(start - WIDEST // 3, len(line) - WIDEST))
