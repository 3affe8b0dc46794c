from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from imageworks.diagnostics import arithmetic, human, machine
from imageworks.diagnostics.model import Diagnostic, Shortfall, Term, Unit
from imageworks.source.text import SourceFile

GIB = 1 << 30
SOURCE = SourceFile("stack.yaml", "a\nb\nc\n")
LINES = tuple(SOURCE.span(at, at + 1) for at in (0, 2, 4))
SUM = Shortfall(
    "card",
    Unit.BYTES,
    (
        Term("weights", 12 * GIB, "declared", LINES[0]),
        Term("KV cache", GIB * 3 // 2, "16384 tokens x 96 KiB", LINES[1]),
        Term("CUDA", GIB, "estimated"),
    ),
    (Term("GPU", 15 * GIB, "lower end of match", LINES[2]), Term("headroom", -GIB, "kept free")),
)


def test_both_sides_stand_beside_each_other_with_their_places() -> None:
    assert list(arithmetic.lines((SUM,))) == [
        "weights   12.00  declared               stack.yaml:1    GPU           15.00  lower end of match  stack.yaml:3",
        "KV cache   1.50  16384 tokens x 96 KiB  :2              headroom      -1.00  kept free",
        "CUDA       1.00  estimated",
        "needed    14.50  GiB                                    usable, card  14.00  GiB",
    ]
    assert SUM.excess == GIB // 2


def test_a_wide_sum_stands_one_side_above_the_other() -> None:
    wide = replace(SUM, needed=(replace(SUM.needed[0], why="because " * 20),))
    told = list(arithmetic.lines((wide,)))
    assert [line.split()[0] for line in told] == ["weights", "needed", "GPU", "headroom", "usable,"]


def test_tokens_are_whole_numbers() -> None:
    sums = Shortfall("context of m", Unit.TOKENS, (Term("images", 8320, "2 x 4160"),), (Term("context", 8192),))
    assert list(arithmetic.lines((sums,))) == [
        "images  8320  2 x 4160    context               8192",
        "needed  8320  tokens      usable, context of m  8192  tokens",
    ]


def test_every_format_tells_the_sum() -> None:
    item = Diagnostic("IW410", "too large", None, notes=("a note",), sums=(SUM,))
    rows = list(arithmetic.lines((SUM,)))
    said = human.full([item], {}).splitlines()
    assert said == ["IW410 too large", *(f"      = {row}" for row in (*rows, "a note"))]
    assert "%0A".join([*rows, "a note"]) in machine.github([item])
    (sums,) = json.loads(machine.json([item]))[0]["sums"]
    assert [term["name"] for term in sums["needed"]] == ["weights", "KV cache", "CUDA"]
    assert sums["available"][1] == {"name": "headroom", "amount": -GIB, "why": "kept free", "span": None}
    assert sums["needed"][1]["span"]["line"] == 2


@given(
    st.lists(st.tuples(st.text("ab ", min_size=1, max_size=20), st.integers(-(2**40), 2**40)), min_size=1, max_size=9),
    st.sampled_from(Unit),
)
def test_the_last_line_is_the_sum_of_the_others(terms: list[tuple[str, int]], unit: Unit) -> None:
    side = tuple(Term(name, amount, "w" * 120) for name, amount in terms)
    told = list(arithmetic.lines((Shortfall("x", unit, side, (Term("room", 1),)),)))
    whole = sum(term.amount for term in side)
    shown = f"{whole / GIB:.2f}" if unit is Unit.BYTES else str(whole)
    assert told[len(side)].split()[1] == shown
