"""IW401: two profiles that match the same machine.

Owns the comparison of `match` blocks and the safe fix, which raises the lower end of the higher range to the
upper end of the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import inf

from imageworks.diagnostics.model import Applicability, Diagnostic, Edit, Fix, Label, Span
from imageworks.model.loaded import Loaded
from imageworks.model.stack import Match
from imageworks.plan.text import size_word

BUILT_IN = "<built-in>"


def check(loaded: Loaded) -> Iterator[Diagnostic]:
    """One finding for each pair of profiles that overlap."""
    profiles = loaded.stack.profiles
    for first, second in combinations(sorted(profiles, key=lambda name: (_low(profiles[name].match), name)), 2):
        if _overlap(profiles[first].match, profiles[second].match):
            yield _finding(loaded, first, second)


def _low(match: Match) -> int:
    return match.vram.low if match.vram else 0


def _high(match: Match) -> float:
    return match.vram.high if match.vram and match.vram.high is not None else inf


def _overlap(one: Match, other: Match) -> bool:
    if one.gpus != other.gpus:
        return False
    if one.gpus == 0:
        return True
    return max(_low(one), _low(other)) < min(_high(one), _high(other)) and _same_compute(one, other)


def _same_compute(one: Match, other: Match) -> bool:
    if one.compute is None or other.compute is None:
        return True
    top = (10**6, 0)
    return max(one.compute.low, other.compute.low) < min(one.compute.high or top, other.compute.high or top)


def _finding(loaded: Loaded, first: str, second: str) -> Diagnostic:
    one, other = (loaded.stack.profiles[name].match for name in (first, second))
    low, high = max(_low(one), _low(other)), min(_high(one), _high(other))
    stretch = f"from {size_word(low)} to {_word(high)}" if one.gpus else "every machine without a GPU"
    place, there = (loaded.value("profiles", name, "match", "vram") for name in (second, first))
    return Diagnostic(
        "IW401",
        f"{first} and {second} match the same machine",
        Label(place, f"overlaps {stretch}") if place else None,
        secondary=(Label(there, first),) if there else (),
        notes=("a machine in the overlap would get either; at most one profile may match",),
        fixes=_fixes(one, other, place if ("profiles", second, "match", "vram") in loaded.places else None),
    )


def _word(high: float) -> str:
    return "any size" if high == inf else size_word(int(high))


def _fixes(one: Match, other: Match, place: Span | None) -> tuple[Fix, ...]:
    if place is None or place.file == BUILT_IN or one.vram is None or one.vram.high is None or other.vram is None:
        return (Fix("change one of the two ranges, or remove a profile"),)
    if _high(other) <= one.vram.high:
        return (Fix("one range lies inside the other: split or remove one"),)
    upper = "" if other.vram.high is None else f" <{size_word(other.vram.high)}"
    text = f'">={size_word(one.vram.high)}{upper}"'
    return (Fix(text, Applicability.SAFE, (Edit(place, text),)),)
