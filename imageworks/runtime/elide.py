"""Large inline media, left out while a body is judged and put back unread.

Owns `elide`: an 8 MB image is one JSON string, and nobody decides anything by its letters. It is cut out of the middle
of its string (the beginning stays, for it says what it is), so that the parser sees kilobytes, and `restore` puts the
client's own bytes back as views, not copies. Why this is exact: what is cut has no quote and no backslash, so a string
that was open before it is open after it, and a parser that would fail before it still does. What is inside one string
(a control character, a byte that is no UTF-8) is the one thing that the engine's parser may refuse and ours does not see.
Pure.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

Body = bytes | bytearray
Pieces = tuple[bytes | memoryview, ...]
FROM_BYTES = 16 << 10
"""Smaller bodies are parsed as they are."""
_BEGIN = b'"data:'
_KEPT = 64
_SHORTEST = 4 << 10
_MOST = 9999


@dataclass(frozen=True, slots=True)
class Elided:
    """A body without its large strings: `skeleton` is JSON with a `token` and a number in their places."""

    skeleton: bytes
    token: bytes
    parts: tuple[memoryview, ...]

    def stands_in(self, text: bytes | memoryview) -> bool:
        """Is something of this part of the skeleton left out?"""
        return self.token in bytes(text)

    def restore(self, text: bytes) -> Pieces:
        """`text`, made from parts of the skeleton, with every token replaced by what stood there."""
        pieces: list[bytes | memoryview] = []
        begin = 0
        for found in re.finditer(re.escape(self.token) + rb"([0-9]{4})", text):
            pieces += (text[begin : found.start()], self.parts[int(found[1])])
            begin = found.end()
        return (*pieces, text[begin:])


def elide(body: Body) -> Elided | None:
    """`body` without its large inline media, None where it has none."""
    if len(body) < FROM_BYTES:
        return None
    view = memoryview(body)
    kept: list[bytes] = []
    parts: list[memoryview] = []
    done = at = 0
    while (at := body.find(_BEGIN, at)) >= 0 and len(parts) < _MOST:
        begin, end = at + _KEPT, body.find(b'"', at + 1)
        if end < 0:
            break
        if end - begin >= _SHORTEST and _is_media(body[at:begin]) and body.find(b"\\", at + 1, end) < 0:
            kept.append(bytes(view[done:begin]))
            parts.append(view[begin:end])
            done = end
        at = end
    if not parts:
        return None
    kept.append(bytes(view[done:]))
    token = next(token for token in _tokens() if not any(token in piece for piece in kept))
    marks = [b"%b%04d" % (token, number) for number in range(len(parts))]
    return Elided(b"".join(itertools.chain(*zip(kept, [*marks, b""], strict=True))), token, tuple(parts))


def _is_media(begin: Body) -> bool:
    """Is it the begin of a data URL (RFC 2397)? Its letters are ASCII, so that no character is cut in two."""
    return b"," in begin and begin.isascii()


def _tokens() -> Iterator[bytes]:
    """Words that may stand for what is cut, until one is found that the rest of the body does not hold."""
    return (b"~elided.%d~" % number for number in itertools.count())
