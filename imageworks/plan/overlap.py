"""IW401: two profiles that match the same machine.

Owns the comparison of `match` blocks and the safe fix, which raises the lower end of the higher range to the
upper end of the other. Profiles that list their devices are looked at before those that count GPUs, so only two of
one form can compete.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import inf

from imageworks.diagnostics.model import Applicability, Diagnostic, Edit, Fix, Label, Span
from imageworks.model.loaded import BUILT_IN, Loaded
from imageworks.model.stack import DeviceMatch, Match
from imageworks.plan.assignment import assign
from imageworks.plan.text import size_word


def check(loaded: Loaded) -> Iterator[Diagnostic]:
    """One finding for each pair of profiles that overlap."""
    profiles = loaded.stack.profiles
    for first, second in combinations(sorted(profiles, key=lambda name: (_low(profiles[name].match), name)), 2):
        if _overlap(profiles[first].match, profiles[second].match):
            yield _finding(loaded, first, second)


def _low(match: Match) -> int:
    return match.slots[0].floor if match.slots else 0


def _high(slot: DeviceMatch) -> float:
    return slot.vram.high if slot.vram and slot.vram.high is not None else inf


def _overlap(one: Match, other: Match) -> bool:
    if bool(one.devices) != bool(other.devices) or len(one.slots) != len(other.slots):
        return False
    if any(match.gpus is None and not match.devices for match in (one, other)):
        return False  # says no machine at all: IW408
    choices = [[index for index, right in enumerate(other.slots) if _shared(left, right)] for left in one.slots]
    return assign(choices) is not None


def _shared(one: DeviceMatch, other: DeviceMatch) -> bool:
    """True when some device fulfils both."""
    lows = max(one.floor, other.floor)
    return one.mig == other.mig and lows < min(_high(one), _high(other)) and _same_compute(one, other)


def _same_compute(one: DeviceMatch, other: DeviceMatch) -> bool:
    if one.compute is None or other.compute is None:
        return True
    top = (10**6, 0)
    return max(one.compute.low, other.compute.low) < min(one.compute.high or top, other.compute.high or top)


def _finding(loaded: Loaded, first: str, second: str) -> Diagnostic:
    one, other = (loaded.stack.profiles[name].match for name in (first, second))
    key = "devices" if one.devices else "vram"
    place, there = (loaded.value("profiles", name, "match", key) for name in (second, first))
    return Diagnostic(
        "IW401",
        f"{first} and {second} match the same machine",
        Label(place, f"overlaps {_stretch(one, other)}") if place else None,
        secondary=(Label(there, first),) if there else (),
        notes=("a machine in the overlap would get either; at most one profile may match",),
        fixes=_fixes(one, other, place if ("profiles", second, "match", "vram") in loaded.places else None),
    )


def _stretch(one: Match, other: Match) -> str:
    if one.devices:
        return "one machine can fulfil both lists"
    if not one.slots:
        return "every machine without a GPU"
    left, right = one.slots[0], other.slots[0]
    return f"from {size_word(max(left.floor, right.floor))} to {_word(min(_high(left), _high(right)))}"


def _word(high: float) -> str:
    return "any size" if high == inf else size_word(int(high))


def _fixes(one: Match, other: Match, place: Span | None) -> tuple[Fix, ...]:
    if place is None or place.file == BUILT_IN or one.vram is None or one.vram.high is None or other.vram is None:
        return (Fix("change one of the two ranges, or remove a profile"),)
    if (inf if other.vram.high is None else other.vram.high) <= one.vram.high:
        return (Fix("one range lies inside the other: split or remove one"),)
    upper = "" if other.vram.high is None else f" <{size_word(other.vram.high)}"
    text = f'">={size_word(one.vram.high)}{upper}"'
    return (Fix(text, Applicability.SAFE, (Edit(place, text),)),)
