"""Numbers for people, and sizes that mean exactly what they stand for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imageworks.model.units import parse_size
from imageworks.plan.ir import GIB, MIB
from imageworks.plan.text import gib_needed, gib_usable, joined, plural, size_word


def test_what_is_needed_is_rounded_up_and_what_is_there_down() -> None:
    assert gib_needed(parse_size("15.85GiB")) == "15.9"
    assert gib_usable(parse_size("13.78GiB")) == "13.7"
    assert gib_usable(parse_size("13.7GiB")) == "13.7"
    assert gib_needed(parse_size("13.7GiB")) == "13.7"


@given(st.integers(1, 12_800))
def test_a_size_with_two_decimals_is_written_as_it_was(hundredths: int) -> None:
    size = parse_size(f"{hundredths / 100:.2f}GiB")
    assert parse_size(size_word(size)) == size


@given(st.integers(1, 100 * GIB))
def test_any_other_size_becomes_the_next_mib(size: int) -> None:
    assert size <= parse_size(size_word(size)) < size + MIB


def test_lists_of_names() -> None:
    assert joined([]) == ""
    assert joined(["a"]) == "a"
    assert joined(["a", "b", "c"], "or") == "a, b or c"
    assert plural(1, "GPU") == "1 GPU"
    assert plural(0, "GPU") == "0 GPUs"
