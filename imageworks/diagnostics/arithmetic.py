"""A sum that does not add up, as lines of text: what is needed on the left, what is there on the right.

Owns the columns, the units and where a term's place is named. One text for terminal, annotations and SARIF alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from imageworks.diagnostics.model import Shortfall, Span, Term, Unit

WIDEST = 132
"""Columns beyond which the two sides stand one above the other."""
_GIB = 1 << 30
_GAP = "    "


def lines(sums: Sequence[Shortfall]) -> Iterator[str]:
    """The lines of all sums in order."""
    for item in sums:
        yield from _sum(item)


def _sum(item: Shortfall) -> Iterator[str]:
    needed = _side(item.needed, "needed", item.unit)
    available = _side(item.available, f"usable, {item.where}", item.unit)
    width = max(map(len, needed))
    if width + len(_GAP) + max(map(len, available)) > WIDEST:
        yield from (*needed, *available)
        return
    rows = zip_longest(needed[:-1], available[:-1], fillvalue="")
    for left, right in (*rows, (needed[-1], available[-1])):
        yield f"{left:<{width}}{_GAP}{right}".rstrip()


def _side(terms: Sequence[Term], total: str, unit: Unit) -> list[str]:
    """The terms of one side, each with its reason and place, and their sum in the last line."""
    names = max(len(name) for name in (total, *(term.name for term in terms)))
    whole = sum(term.amount for term in terms)
    amounts = max(len(_amount(amount, unit)) for amount in (whole, *(term.amount for term in terms)))
    reasons = max((len(term.why) for term in terms), default=0)
    rows, file = [], ""
    for term in terms:
        place, file = _place(term.span, file)
        row = f"{term.name:<{names}}  {_amount(term.amount, unit):>{amounts}}  {term.why:<{reasons}}  {place}"
        rows.append(row.rstrip())
    return [*rows, f"{total:<{names}}  {_amount(whole, unit):>{amounts}}  {_UNITS[unit]}"]


_UNITS = {Unit.BYTES: "GiB", Unit.TOKENS: "tokens", Unit.MODELS: "models", Unit.PORTS: "ports"}


def _amount(amount: int, unit: Unit) -> str:
    return f"{amount / _GIB:.2f}" if unit is Unit.BYTES else str(amount)


def _place(span: Span | None, file: str) -> tuple[str, str]:
    """`stack.yaml:12`, or `:12` where the line above named the same file; and the file named last."""
    if span is None:
        return "", file
    return (f":{span.line}" if span.file == file else f"{span.file}:{span.line}"), span.file
