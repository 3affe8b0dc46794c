from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from imageworks.model.units import (
    LARGEST_SIZE,
    UNITS,
    parse_count,
    parse_duration,
    parse_number,
    parse_pixels,
    parse_priority,
    parse_range,
    parse_size,
    parse_version_number,
)


def refusal(parse: Any, text: str) -> tuple[str, str, list[str]]:
    with pytest.raises(PydanticCustomError) as caught:
        parse(text)
    context = caught.value.context
    assert context is not None
    return caught.value.type, context["message"], [fix.replacement for fix in context["fixes"]]


@pytest.mark.parametrize(
    ("text", "size"),
    [("9.88GiB", 10608569221), ("3500MiB", 3500 << 20), ("1KiB", 1024), ("0GiB", 0), ("1024TiB", LARGEST_SIZE)],
)
def test_a_size_is_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "code", "message", "instead"),
    [
        ("10.6GB", "IW203", "GB is ambiguous", ["9.87GiB", "10.6GiB"]),
        ("16GB", "IW203", "GB is ambiguous", ["14.9GiB", "16GiB"]),
        ("500mb", "IW203", "MB is ambiguous", ["476.84MiB", "500MiB"]),
        ("16G", "IW203", "GB is ambiguous", ["14.9GiB", "16GiB"]),
        ("16", "IW203", "a size needs a unit", ["16GiB", "16MiB"]),
        ("16 GiB", "IW203", "`16 GiB` is written 16GiB", ["16GiB"]),
        ("16gib", "IW203", "`16gib` is written 16GiB", ["16GiB"]),
        ("much", "IW203", "`much` is not a size", []),
        ("-1GiB", "IW203", "`-1GiB` is not a size", []),
        ("2000TiB", "IW206", "2000TiB is more than any machine has", []),
    ],
)
def test_what_is_no_size_says_what_would_be(text: str, code: str, message: str, instead: list[str]) -> None:
    assert refusal(parse_size, text) == (code, message, instead)
    for better in instead:
        assert parse_size(better) > 0


@given(st.decimals(0, 900, places=2), st.sampled_from(sorted(UNITS)))
def test_a_size_is_exact_to_half_a_byte(number: Decimal, unit: str) -> None:
    assert abs(parse_size(f"{number}{unit}") - number * UNITS[unit]) <= Decimal("0.5")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1h30m", 5400), ("250ms", 0.25), ("5m", 300), ("1d", 86400), ("0s", 0), ("1.5h", 5400)],
)
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "message", "instead"),
    [
        ("300", "a duration needs a unit", ["300s", None]),
        ("5 min", "`5 min` is written 5m", ["5m"]),
        ("90sec", "`90sec` is written 90s", ["90s"]),
        ("20 milliseconds", "`20 milliseconds` is written 20ms", ["20ms"]),
        ("30m1h", "`30m1h` is not a duration", []),
        ("never", "`never` is not possible here", []),
        ("", "`` is not a duration", []),
    ],
)
def test_what_is_no_duration_says_what_would_be(text: str, message: str, instead: list[str]) -> None:
    assert refusal(parse_duration, text) == ("IW204", message, instead)


def test_a_duration_ends_within_a_year() -> None:
    assert refusal(parse_duration, "400d")[0] == "IW206"


@pytest.mark.parametrize(("text", "count"), [("8192", 8192), ("8_192", 8192), ("0", 0), ("012", 12)])
def test_a_count_is_digits(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["8k", "-1", "1.5", "", "_1", "1e3", "\uff19", "99999999999999"])
def test_a_count_is_nothing_else(text: str) -> None:
    assert refusal(parse_count, text)[0] in {"IW213", "IW206"}


def test_thousands_are_not_guessed() -> None:
    assert refusal(parse_count, "8k") == ("IW213", "8192 or 8000?", ["8192", "8000"])


@pytest.mark.parametrize("text", ["nan", "inf", "1e5", "", "1.", "0,3"])
def test_a_number_is_finite_and_plain(text: str) -> None:
    assert refusal(parse_number, text)[0] == "IW213"
    assert parse_number("-0.5") == -0.5


def test_priorities_end_at_a_hundred() -> None:
    assert [parse_priority(text) for text in ("0", "100", "85")] == [0, 100, 85]
    assert refusal(parse_priority, "850") == ("IW206", "priority 850 is outside 0..100", ["85"])
    assert refusal(parse_priority, "-1")[0] == "IW206"
    assert refusal(parse_priority, "high")[0] == "IW213"


def test_pixels_name_their_unit() -> None:
    assert parse_pixels("1024px") == 1024
    assert refusal(parse_pixels, "448") == ("IW213", "448 of what?", ["448px"])
    assert refusal(parse_pixels, "big")[0] == "IW213"


def sizes(text: str) -> tuple[int, int | None]:
    return parse_range(text, parse_size, lambda size: size + 1, 0)


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        (">=1GiB", (1 << 30, None)),
        ("<1GiB", (0, 1 << 30)),
        (">=1GiB <2GiB", (1 << 30, 2 << 30)),
        ("=1GiB", (1 << 30, (1 << 30) + 1)),
        (" >= 1GiB  < 2GiB ", (1 << 30, 2 << 30)),
    ],
)
def test_a_range_says_which_ends_belong_to_it(text: str, bounds: tuple[int, int | None]) -> None:
    assert sizes(text) == bounds


@pytest.mark.parametrize(
    ("text", "code", "instead"),
    [
        ("15-22GiB", "IW213", ['">=15GiB <22GiB"']),
        ("15GiB..22GiB", "IW213", ['">=15GiB <22GiB"']),
        ("15GiB", "IW213", ['">=15GiB"']),
        ("", "IW213", []),
        ("<=22GiB", "IW213", []),
        (">15GiB", "IW213", []),
        (">=22GiB <15GiB", "IW206", []),
        (">=22GiB <22GiB", "IW206", []),
        (">=22GB", "IW203", ["20.49GiB", "22GiB"]),
    ],
)
def test_what_is_no_range_says_what_would_be(text: str, code: str, instead: list[str]) -> None:
    assert refusal(sizes, text)[::2] == (code, instead)


def test_versions_compare_by_number() -> None:
    assert parse_version_number("8.10") > parse_version_number("8.9") == (8, 9)
    assert parse_version_number("9") == (9, 0)
    assert refusal(parse_version_number, "eight")[0] == "IW213"
