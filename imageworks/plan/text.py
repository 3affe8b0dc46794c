"""How the plan writes numbers in reasons and diagnostics.

Owns formatting only: sizes in GiB for people, the shortest exact size for a fix, lists of names. Knows nothing
of stacks or plans.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from imageworks.plan.ir import GIB, MIB


def gib(size: int) -> str:
    """Two decimals, for sums.

    >>> gib(14710663578)
    '13.70'
    """
    return f"{size / GIB:.2f}"


def gib_needed(size: int) -> str:
    """One decimal, rounded up: what must be there."""
    return _one_decimal(size, ROUND_CEILING)


def gib_usable(size: int) -> str:
    """One decimal, rounded down: what is there."""
    return _one_decimal(size, ROUND_FLOOR)


def _one_decimal(size: int, rounding: str) -> str:
    exact = (Decimal(size) / GIB).quantize(Decimal("0.001"))  # a declared 13.7GiB is 13.69999… in whole bytes
    return str(exact.quantize(Decimal("0.1"), rounding=rounding))


def size_word(size: int) -> str:
    """The shortest size of stack.yaml that means `size` bytes (or the next MiB above it).

    >>> size_word(23729944166)
    '22.1GiB'
    """
    for places in range(3):
        word = f"{size / GIB:.{places}f}"
        if int((Decimal(word) * GIB).to_integral_value()) == size:
            return f"{word}GiB"
    return f"{-(-size // MIB)}MiB"


def joined(names: Iterable[str], last: str = "and") -> str:
    """`a, b and c`."""
    items = list(names)
    if len(items) < 2:  # noqa: PLR2004 - a list of one has no last word
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def plural(count: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
