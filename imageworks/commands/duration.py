"""How long, as a person writes it on a command line: `90s`, `10m`, `1h` or plain seconds."""

from __future__ import annotations

import click

LONGEST_S = 86_400
_UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    """The callback of an option. Raises BadParameter for anything but 0 to a day."""
    if text is None:
        return None
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    try:
        value = float(number) * _UNITS[unit]
    except ValueError:
        value = -1.0
    if not 0 <= value <= LONGEST_S:  # also false for nan
        raise click.BadParameter(f"{text} is no duration; write it like 90s, 10m or 1h")
    return value
