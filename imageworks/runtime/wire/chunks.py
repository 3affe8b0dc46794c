"""A chunked request body, decoded strictly and within a limit.

Owns `Chunks`: bytes in, payload out, and what follows the body. Extensions are allowed short and ignored; trailers are
read and dropped (they could carry what the head's checks have refused). Pure.
"""

from __future__ import annotations

import re

from imageworks.runtime.errors import ApiError, too_large
from imageworks.runtime.wire.limits import CHUNK_LINE_BYTES, CHUNKS, TRAILER_BYTES

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\x20-\x7e\t]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*")


class Chunks:
    """Feed it until `rest` is not None: then `payload` is whole, and `rest` what came behind it."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held, self._left = limit, bytearray(), 0
        self._state, self._trailers, self._count = "size", 0, 0
        self.payload = bytearray()
        self.rest: bytes | None = None

    def feed(self, data: bytes) -> None:
        """Take more bytes. Raises ApiError 400 for what is no chunk, 413 above the limit."""
        self._held += data
        while self.rest is None and self._step():
            pass

    def _step(self) -> bool:
        """One line or piece of data; False when more bytes are needed."""
        if self._state == "data":
            return self._data()
        end = self._held.find(b"\n")
        limit = CHUNK_LINE_BYTES if self._state != "trailer" else TRAILER_BYTES
        if end > limit or (end < 0 and len(self._held) > limit):
            raise _bad("a line is too long")
        if end < 0:
            return False
        line = bytes(self._held[: end + 1])
        del self._held[: end + 1]
        if not line.endswith(b"\r\n"):
            raise _bad("a line does not end with CR LF")
        (self._size if self._state == "size" else self._between if self._state == "end" else self._trailer)(line[:-2])
        return True

    def _size(self, line: bytes) -> None:
        size = _SIZE.fullmatch(line)
        if size is None:
            raise _bad("a chunk's size is no hexadecimal number")
        self._left = int(size[1], 16)
        self._count += 1
        if self._count > CHUNKS:
            raise _bad(f"more than {CHUNKS} chunks")
        if len(self.payload) + self._left > self._limit:
            raise too_large(None)
        self._state = "data" if self._left else "trailer"

    def _data(self) -> bool:
        piece = self._held[: self._left]
        if not piece:
            return False
        self.payload += piece
        del self._held[: len(piece)]
        self._left -= len(piece)
        if not self._left:
            self._state = "end"
        return True

    def _between(self, line: bytes) -> None:
        if line:
            raise _bad("a chunk is longer than its size")
        self._state = "size"

    def _trailer(self, line: bytes) -> None:
        self._trailers += len(line) + 2
        if self._trailers > TRAILER_BYTES or (line and not _TRAILER.fullmatch(line)):
            raise _bad("a trailer is malformed or too long")
        if not line:
            self.rest = bytes(self._held)


def _bad(message: str) -> ApiError:
    return ApiError(400, "bad_request", f"chunked body: {message}")
