"""Sizes, durations, ranges and counts: their grammar, and what is said to a text that misses it.

Pure functions from text to a number in base units (bytes, seconds, pixels), after language.md section 5. Each
raises the `PydanticCustomError` of `written.refuse`. Knows no field and no place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import TypeVar

from imageworks.model.written import Suggestion, instead, refuse

KIB = 1 << 10
UNITS = {"KiB": KIB, "MiB": KIB**2, "GiB": KIB**3, "TiB": KIB**4}
DECIMAL_UNITS = {"K": 1_000, "M": 1_000**2, "G": 1_000**3, "T": 1_000**4}
LARGEST_SIZE = 1024 * UNITS["TiB"]
LARGEST_COUNT = 1_000_000_000
LONGEST_DURATION = 366 * 86_400

_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
_SIZE = re.compile(rf"({_NUMBER})(KiB|MiB|GiB|TiB)")
_LOOSE_SIZE = re.compile(rf"({_NUMBER})\s*([kmgt])i?b?", re.IGNORECASE)
_DURATION = re.compile(rf"(?:({_NUMBER})d)?(?:({_NUMBER})h)?(?:({_NUMBER})m)?(?:({_NUMBER})s)?(?:({_NUMBER})ms)?")
_LOOSE_DURATION = re.compile(
    rf"({_NUMBER})\s*(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?|hrs?|d|days?)", re.IGNORECASE
)
_SECONDS = tuple(map(Decimal, ("86400", "3600", "60", "1", "0.001")))
_VERSION = re.compile(r"([0-9]{1,4})(?:\.([0-9]{1,4}))?")

T = TypeVar("T")


def parse_size(text: str) -> int:
    """Bytes of `9.88GiB`. Refuses decimal units (IW203), no unit (IW203) and anything above 1024TiB (IW206)."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise _not_a_size(text)
    size = int((Decimal(match[1]) * UNITS[match[2]]).to_integral_value())
    if size > LARGEST_SIZE:
        raise refuse("IW206", f"{text} is more than any machine has", "1024TiB is the highest")
    return size


def _not_a_size(text: str) -> Exception:
    loose = _LOOSE_SIZE.fullmatch(text)
    if loose is None:
        return _size_without_unit(text)
    number, letter = loose[1], loose[2].upper()
    binary = f"{number}{letter}iB"
    rest = text[len(number) :].strip()
    if rest.lower() == f"{letter.lower()}ib":
        fix = Suggestion(binary, binary, safe=True)
        return refuse("IW203", f"`{text}` is written {binary}", "no blank, and a capital first letter", fixes=(fix,))
    on_disk = f"{shortest(Decimal(number) * DECIMAL_UNITS[letter] / UNITS[f'{letter}iB'])}{letter}iB"
    decimal = f"{letter}B"
    return refuse(
        "IW203",
        f"{decimal} is ambiguous",
        "file sizes count powers of 1000, cards powers of 1024",
        f"{number} {decimal} of files are {on_disk}; if the figure came from nvidia-smi it is {binary}",
        fixes=instead(on_disk, binary),
    )


def _size_without_unit(text: str) -> Exception:
    if re.fullmatch(_NUMBER, text):
        return refuse("IW203", "a size needs a unit", "of what?", fixes=instead(f"{text}GiB", f"{text}MiB"))
    return refuse("IW203", f"`{text}` is not a size", "a number and KiB, MiB, GiB or TiB, such as 9.88GiB")


def shortest(value: Decimal) -> str:
    """`value` with at most two decimals and no trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def parse_duration(text: str) -> float:
    """Seconds of `1h30m`. Refuses a missing or misspelt unit (IW204) and more than 366 days (IW206)."""
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise _not_a_duration(text)
    seconds = sum(Decimal(part) * unit for part, unit in zip(match.groups(), _SECONDS, strict=True) if part is not None)
    if seconds > LONGEST_DURATION:
        raise refuse("IW206", f"{text} is more than a year", "366d is the highest")
    return float(seconds)


def _not_a_duration(text: str) -> Exception:
    if re.fullmatch(r"[0-9]{1,15}", text):
        number = int(text)
        minutes = (
            Suggestion(f"{number // 60}m is the same time") if number and number % 60 == 0 else Suggestion(f"{number}m")
        )
        fixes = (Suggestion(f"{number}s", f"{number}s"), minutes)
        return refuse("IW204", "a duration needs a unit", "seconds or minutes?", fixes=fixes)
    loose = _LOOSE_DURATION.fullmatch(text)
    if loose is not None:
        word = loose[2].lower()
        unit = "ms" if word.startswith(("ms", "mil")) else word[0]
        fix = f"{loose[1]}{unit}"
        return refuse(
            "IW204", f"`{text}` is written {fix}", "the units are ms s m h d", fixes=(Suggestion(fix, fix, safe=True),)
        )
    if text in {"never", "none"}:
        return refuse("IW204", f"`{text}` is not possible here", "a duration such as 90s, 5m or 1h30m")
    return refuse(
        "IW204", f"`{text}` is not a duration", "numbers with ms s m h d, longest first, such as 90s or 1h30m"
    )


def parse_count(text: str) -> int:
    """A whole number from 0; `_` may group its digits. Refuses `8k`, signs and fractions (IW213)."""
    digits = text.replace("_", "")
    if (
        re.fullmatch(r"[0-9](?:_?[0-9])*", text)
        and len(digits) <= len(str(LARGEST_COUNT))
        and int(digits) <= LARGEST_COUNT
    ):
        return int(digits)
    thousands = re.fullmatch(r"([0-9]{1,6})[kK]", text)
    if thousands is not None:
        binary, decimal = int(thousands[1]) * 1024, int(thousands[1]) * 1000
        raise refuse("IW213", f"{binary} or {decimal}?", "write the number", fixes=instead(str(binary), str(decimal)))
    if re.fullmatch(r"[+-]?[0-9_]+", text):
        raise refuse("IW206", f"{text} is outside 0..{LARGEST_COUNT}", "a count")
    raise refuse("IW213", f"`{text}` is not a whole number", "digits only; a bare number is a count")


def parse_pixels(text: str) -> int:
    """Pixels of `1024px`, the long edge."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})px", text)
    if match is not None:
        return int(match[1])
    if re.fullmatch(r"[1-9][0-9]{0,5}", text):
        note = "pixels in total are not a policy here"
        raise refuse("IW213", f"{text} of what?", "px? the long edge", note, fixes=instead(f"{text}px"))
    raise refuse("IW213", f"`{text}` is not a length in pixels", "a number and px, such as 1024px")


def parse_number(text: str) -> float:
    """A finite decimal number. No `nan`, no `inf`, no exponent: nobody means those in a sampling value."""
    if re.fullmatch(r"-?[0-9]{1,9}(?:\.[0-9]{1,9})?", text):
        return float(text)
    raise refuse("IW213", f"`{text}` is not a number", "digits with at most one point, such as 0.3")


def parse_priority(text: str) -> int:
    """A whole number 0..100; higher wins. Refuses with IW206."""
    if re.fullmatch(r"[0-9]{1,3}", text) and int(text) <= 100:  # noqa: PLR2004 - the bound is the type
        return int(text)
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise refuse("IW213", f"`{text}` is not a priority", "a whole number 0..100, higher wins")
    shortened = text[:2]
    fixes = (Suggestion(f"{shortened}?", shortened),) if shortened.isdigit() else ()
    raise refuse("IW206", f"priority {text} is outside 0..100", "higher wins, 100 is the highest", fixes=fixes)


def parse_version_number(text: str) -> tuple[int, int]:
    """(8, 9) of `8.9`."""
    match = _VERSION.fullmatch(text)
    if match is None:
        raise refuse("IW213", f"`{text}` is not a version", "two numbers with a point, such as 8.9")
    return int(match[1]), int(match[2] or 0)


def parse_range(text: str, parse: Callable[[str], T], after: Callable[[T], T], zero: T) -> tuple[T, T | None]:
    """(low, high) of `>=X <Y`, high exclusive and None where open; `after` gives the next value, for `=X`.

    Refuses another form with IW213 and an empty range with IW206.
    """
    match = re.fullmatch(r"\s*(?:>=\s*(\S+?))?\s*(?:<\s*([^=\s]\S*))?\s*", text)
    exact = re.fullmatch(r"\s*=\s*(\S+)\s*", text)
    if exact is not None:
        low = parse(exact[1])
        return low, after(low)
    if match is None or match.groups() == (None, None):
        raise _not_a_range(text)
    low = parse(match[1]) if match[1] else zero
    high = parse(match[2]) if match[2] else None
    if high is not None and not low < high:  # type: ignore[operator]  # both ends are of one ordered type
        raise refuse("IW206", f"no value is in the range {text}", "the lower end is not below the upper end")
    return low, high


def _not_a_range(text: str) -> Exception:
    ends = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*(?:-|\.\.)\s*([0-9.]+)\s*([A-Za-z]*)\s*", text)
    if ends is not None:
        fix = f'">={ends[1]}{ends[2] or ends[4]} <{ends[3]}{ends[4]}"'
    elif re.match(r"\s*[0-9]", text):
        fix = f'">={text.strip()}"'
    else:
        return refuse("IW213", f"`{text}` is not a range", 'one of ">=X", "<Y", ">=X <Y", "=X", in quotes')
    return refuse(
        "IW213", f"a range says whether its ends belong to it: {fix}", "which ends belong to it?", fixes=instead(fix)
    )
