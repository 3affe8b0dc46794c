"""Memory that is used again is nobody else's any more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imageworks.runtime.wire.body import FIRST_BYTES, SPARE_LEAST, SPARE_MOST, Spares


def test_memory_that_somebody_looks_at_is_not_taken() -> None:
    spares, body = Spares(), bytearray(SPARE_LEAST)
    view = memoryview(body)[5:]
    spares.give(body)
    assert spares.take(SPARE_LEAST) is not body
    view.release()
    spares.give(body)
    assert spares.take(SPARE_LEAST) is body
    assert spares.take(SPARE_LEAST) is not body


@given(st.lists(st.integers(SPARE_LEAST // 2, 4 * SPARE_LEAST), min_size=2, max_size=12))
def test_every_length_is_given_exactly(lengths: list[int]) -> None:
    spares = Spares()
    for length in lengths:
        body = spares.take(length)
        assert len(body) == length
        spares.give(body)


def test_what_nobody_took_for_a_while_is_let_go() -> None:
    spares, body = Spares(), bytearray(SPARE_LEAST)
    spares.give(body)
    spares.sweep()
    assert spares.take(SPARE_LEAST) is not body
    huge = bytearray(SPARE_MOST + 1)
    spares.give(huge)
    assert spares.take(SPARE_MOST + 1) is not huge


def test_a_body_that_is_only_announced_has_little_memory() -> None:
    assert len(Spares().take(64 << 20)) == FIRST_BYTES
