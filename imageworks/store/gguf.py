"""The header of a GGUF file: its key-value pairs, without the tensors.

Owns the byte format (ggml's docs/gguf.md, versions 2 and 3, little endian) and its bounds: a hostile file costs at
most `MAX_HEADER` bytes of reading and never an allocation larger than itself. Knows no meaning of any key. Lists
longer than `MAX_LIST` (vocabularies) are stepped over; their place in the result is taken by their length.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imageworks.store.errors import FactsError

MAX_HEADER = 64 << 20
MAX_LIST = 4096
_MAX_DEPTH = 4
_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_NUMBERS = {
    0: struct.Struct("<B"), 1: struct.Struct("<b"), 2: struct.Struct("<H"), 3: struct.Struct("<h"),
    4: struct.Struct("<I"), 5: struct.Struct("<i"), 6: struct.Struct("<f"), 7: struct.Struct("<?"),
    10: struct.Struct("<Q"), 11: struct.Struct("<q"), 12: struct.Struct("<d"),
}  # fmt: skip
_U32, _U64 = _NUMBERS[4], _NUMBERS[10]


@dataclass(frozen=True, slots=True)
class Skipped:
    """Stands for a list that was too long to keep."""

    length: int


Value = int | float | bool | str | Skipped | tuple["Value", ...]


class GgufError(ValueError):
    """Not a GGUF header, or one beyond the bounds; the message is a phrase."""


@dataclass(slots=True)
class _Cursor:
    """A place in the bytes; every step is checked against the end before anything is made."""

    data: bytes | mmap.mmap
    end: int
    at: int = 0

    def number(self, form: struct.Struct) -> int | float | bool:
        start = self.step(form.size)
        value: int | float | bool = form.unpack_from(self.data, start)[0]
        return value

    def length(self) -> int:
        return int(self.number(_U64))

    def step(self, size: int) -> int:
        start = self.at
        if size > self.end - start:
            raise GgufError("its header is cut off")
        self.at = start + size
        return start

    def text(self) -> str:
        size = self.length()
        start = self.step(size)
        return self.data[start : start + size].decode("utf-8", "replace")


def parse(data: bytes | mmap.mmap) -> Mapping[str, Value]:
    """The key-value pairs of a GGUF file that begins with `data`. Raises GgufError."""
    cursor = _Cursor(data, min(len(data), MAX_HEADER))
    if data[:4] != _MAGIC:
        raise GgufError("it does not begin with GGUF")
    cursor.step(4)
    version = cursor.number(_U32)
    if version not in {2, 3}:
        raise GgufError(f"its GGUF version is {version}, known are 2 and 3")
    cursor.length()  # tensors
    return {cursor.text(): _value(cursor, int(cursor.number(_U32)), 0) for _ in range(cursor.length())}


def _value(cursor: _Cursor, kind: int, depth: int) -> Value:
    if kind == _STRING:
        return cursor.text()
    if kind == _ARRAY:
        return _list(cursor, depth + 1)
    if kind not in _NUMBERS:
        raise GgufError(f"value type {kind} is not known")
    return cursor.number(_NUMBERS[kind])


def _list(cursor: _Cursor, depth: int) -> Value:
    if depth > _MAX_DEPTH:
        raise GgufError("lists are nested too deeply")
    kind, length = int(cursor.number(_U32)), cursor.length()
    if length <= MAX_LIST:
        return tuple(_value(cursor, kind, depth) for _ in range(length))
    if kind in _NUMBERS:
        cursor.step(length * _NUMBERS[kind].size)
    elif kind == _STRING:
        for _ in range(length):
            cursor.step(cursor.length())
    else:
        raise GgufError("a long list holds neither numbers nor texts")
    return Skipped(length)


def read(path: Path) -> Mapping[str, Value]:
    """The key-value pairs of the file. Raises FactsError when it is no readable GGUF file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return parse(data)
    except OSError as error:
        raise FactsError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # GgufError, or mmap's for an empty file
        raise FactsError(f"{path} is not a usable GGUF file: {error}") from None
