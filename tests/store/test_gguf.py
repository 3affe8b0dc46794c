from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader
from hypothesis import example, given
from hypothesis import strategies as st

from imageworks.store.errors import FactsError
from imageworks.store.gguf import MAX_LIST, GgufError, Skipped, parse, read

Write = Callable[..., Path]
KINDS = {"B": 0, "b": 1, "H": 2, "h": 3, "I": 4, "i": 5, "f": 6, "?": 7, "Q": 10, "q": 11, "d": 12}
RANGES = {form: (0, 2 ** (8 * struct.calcsize(form)) - 1) for form in "BHIQ"}
RANGES |= {form: (-(2 ** (8 * struct.calcsize(form) - 1)), 2 ** (8 * struct.calcsize(form) - 1) - 1) for form in "bhiq"}


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def header(pairs: int, body: bytes, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, 0, pairs) + body


@st.composite
def values(draw: st.DrawFn, depth: int = 0) -> tuple[int, bytes, Any]:
    """A value's type number, its bytes and what it means."""
    kind = draw(st.sampled_from([*KINDS, "text", *(["list"] if depth < 2 else [])]))
    if kind == "text":
        meant: Any = draw(st.text())
        return 8, text(meant), meant
    if kind == "list":
        return _list(draw, depth)
    if kind in "fd":
        meant = draw(st.floats(width=32 if kind == "f" else 64, allow_nan=False))
    elif kind == "?":
        meant = draw(st.booleans())
    else:
        meant = draw(st.integers(*RANGES[kind]))
    return KINDS[kind], struct.pack(f"<{kind}", meant), meant


def _list(draw: st.DrawFn, depth: int) -> tuple[int, bytes, Any]:
    kind, data, meant = draw(values(depth=depth + 1))
    length = draw(st.integers(0, 5))
    return 9, struct.pack("<IQ", kind, length) + data * length, (meant,) * length


@given(st.dictionaries(st.text(), values()))
def test_every_value_is_read_as_it_was_written(pairs: dict[str, tuple[int, bytes, Any]]) -> None:
    body = b"".join(text(key) + struct.pack("<I", kind) + data for key, (kind, data, _) in pairs.items())
    assert parse(header(len(pairs), body)) == {key: meant for key, (_, _, meant) in pairs.items()}


@given(st.dictionaries(st.text(), values(), min_size=1), st.data())
def test_a_header_that_is_cut_off_is_refused(pairs: dict[str, tuple[int, bytes, Any]], data: st.DataObject) -> None:
    body = b"".join(text(key) + struct.pack("<I", kind) + value for key, (kind, value, _) in pairs.items())
    whole = header(len(pairs), body)
    with pytest.raises(GgufError):
        parse(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=400))
@example(header(2**64 - 1, b""))
@example(header(1, text("x") + struct.pack("<IIQ", 9, 0, 2**64 - 1)))
@example(header(1, text("x") + struct.pack("<IIQ", 9, 8, 2**64 - 1)))
@example(header(1, text("x") + struct.pack("<IIQ", 9, 9, 2**64 - 1)))
@example(header(1, struct.pack("<Q", 2**64 - 1)))
@example(header(1, text("x") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 1000))
@example(header(1, text("x") + struct.pack("<I", 99)))
def test_hostile_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    for start in (data, header(3, data)):
        try:
            parse(start)
        except GgufError:
            continue


def test_the_longest_header_that_is_looked_at_costs_seconds_at_most(tmp_path: Path) -> None:
    """A sparse file of zeros behind a list that claims to go on for ever: millions of empty texts."""
    file = tmp_path / "zeros.gguf"
    file.write_bytes(header(1, text("x") + struct.pack("<IIQ", 9, 8, 2**63)))
    with file.open("r+b") as sparse:
        sparse.truncate(1 << 32)
    start = time.monotonic()
    with pytest.raises(FactsError, match="its header is cut off"):
        read(file)
    assert time.monotonic() - start < 20


def test_a_long_list_is_stepped_over_and_what_follows_is_read() -> None:
    long = struct.pack("<IQ", 8, MAX_LIST + 1) + text("token") * (MAX_LIST + 1)
    numbers = struct.pack("<IQ", 4, MAX_LIST + 1) + bytes(4 * (MAX_LIST + 1))
    body = (
        text("a") + struct.pack("<I", 9) + long + text("b") + struct.pack("<I", 9) + numbers + text("c") + b"\0\0\0\0\7"
    )
    assert parse(header(3, body)) == {"a": Skipped(MAX_LIST + 1), "b": Skipped(MAX_LIST + 1), "c": 7}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is not a usable GGUF file"),
        (b"PK\3\4", "it does not begin with GGUF"),
        (b"GGUF" + struct.pack("<I", 1), "its GGUF version is 1, known are 2 and 3"),
        (b"GGUF" + struct.pack(">I", 3), "its GGUF version is 50331648"),
        (header(1, text("x") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9), "nested too deeply"),
    ],
)
def test_the_reason_names_the_file_and_what_is_wrong(tmp_path: Path, data: bytes, reason: str) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(data)
    with pytest.raises(FactsError, match=reason) as caught:
        read(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(FactsError, match="cannot be read: No such file"):
        read(tmp_path / "x.gguf")


def test_it_agrees_with_the_reference_reader(write_gguf: Write) -> None:
    file = write_gguf("m.gguf", "llama", llama__block_count=30, general__name="Ümlaut", a__flag=True, a__list=[1, 2, 3])
    theirs = {name: field.contents() for name, field in GGUFReader(file).fields.items() if not name.startswith("GGUF.")}
    ours = {name: list(value) if isinstance(value, tuple) else value for name, value in read(file).items()}
    assert ours == theirs
    assert ours["llama.block_count"] == 30
