from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imageworks.source.repair import Repair, Repaired

ORIGINAL = "0123456789abcdefghij"


@st.composite
def some_repairs(draw: st.DrawFn) -> tuple[Repair, ...]:
    bounds = sorted(draw(st.sets(st.integers(0, len(ORIGINAL)), max_size=8)))
    pairs = zip(bounds[::2], bounds[1::2], strict=False)
    return tuple(Repair(start, end, draw(st.text("xyz", max_size=4))) for start, end in pairs)


@given(some_repairs())
def test_every_kept_character_leads_back_to_itself(repairs: tuple[Repair, ...]) -> None:
    repaired = Repaired(ORIGINAL, repairs)
    for offset, char in enumerate(repaired.text):
        if char not in "xyz":
            assert ORIGINAL[repaired.original_offset(offset)] == char


@given(some_repairs())
def test_places_keep_their_order(repairs: tuple[Repair, ...]) -> None:
    repaired = Repaired(ORIGINAL, repairs)
    back = [repaired.original_offset(offset) for offset in range(len(repaired.text) + 1)]
    assert back == sorted(back)


def test_the_end_of_a_repair_is_the_end_of_what_it_replaced() -> None:
    repaired = Repaired("a: >=1 # c", (Repair(3, 6, '">=1"'),))
    assert repaired.text == 'a: ">=1" # c'
    assert [repaired.original_offset(offset) for offset in (3, 5, 8, 9)] == [3, 3, 6, 7]


def test_a_repair_never_touches_an_earlier_one() -> None:
    once = Repaired("abcdef", (Repair(1, 3, "x"),))
    assert once.with_repair(Repair(2, 4, "y")) is None
    assert once.with_repair(Repair(1, 3, "x")) is None
    after = once.with_repair(Repair(3, 4, "y"))
    assert after is not None
    assert after.text == "axyef"
