"""Where a stream may be cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imageworks.runtime.answer import HELD_BYTES, Lines, is_events
from imageworks.runtime.errors import ApiError

PIECES = st.lists(st.binary(max_size=20) | st.sampled_from([b"\n", b"data: x\n\n", b"\r\n"]), max_size=12)


@given(PIECES)
def test_whole_lines_pass_and_nothing_is_lost(pieces: list[bytes]) -> None:
    lines, passed = Lines(by_line=True), b""
    for piece in pieces:
        found = lines.feed(piece)
        assert not found or found.endswith(b"\n")
        passed += found
    assert passed + lines.rest() == b"".join(pieces)
    assert lines.rest() == b""


@given(PIECES)
def test_what_is_no_stream_of_events_passes_as_it_comes(pieces: list[bytes]) -> None:
    lines = Lines(by_line=False)
    assert [lines.feed(piece) for piece in pieces] == pieces


def test_a_line_of_megabytes_is_not_waited_for_and_an_error_never_joins_it() -> None:
    lines, error = Lines(by_line=True), ApiError(502, "backend_error", "x")
    assert lines.feed(b"data: " + b"x" * HELD_BYTES)
    assert lines.failure(error).startswith(b"\n\ndata: ")
    assert lines.feed(b"end\n") == b"end\n"
    assert lines.failure(error).startswith(b"\ndata: ")


def test_events_are_known_by_their_type() -> None:
    assert is_events("text/event-stream; charset=utf-8")
    assert is_events("Text/Event-Stream")
    assert not is_events("application/json")
    assert not is_events("")
