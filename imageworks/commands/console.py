"""Words on the terminal: progress on stderr, colours only where a person looks.

Owns how the verbs speak. Results go to stdout, everything about the way there to stderr, so that
`--format json` can be piped. Decides nothing.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Self

import click


def colour_wanted(stream_is_terminal: bool) -> bool:
    """Colours only on a terminal, and never against NO_COLOR (no-color.org) or TERM=dumb."""
    return stream_is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def unicode_wanted(encoding: str | None) -> bool:
    """Signs beyond ASCII only where the stream's encoding can carry them."""
    return (encoding or "").lower().replace("-", "") == "utf8"


def say(text: str = "") -> None:
    """A line about the way there, on stderr."""
    click.echo(text, err=True, color=colour_wanted(sys.stderr.isatty()))


def result(text: str) -> None:
    """A line of the result, on stdout."""
    click.echo(text, color=colour_wanted(sys.stdout.isatty()))


def fail(message: str, *then: str) -> int:
    """Say what is wrong and what to do about it; returns exit code 1."""
    say(click.style("error", fg="red", bold=True) + f": {message}")
    for line in then:
        say(f"  = {line}")
    return 1


class Step:
    """One step of a longer work: a live line on a terminal, a line at the end elsewhere.

    >>> with Step("starting the proxy") as step:   # doctest: +SKIP
    ...     step.update("waiting for readiness")
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._detail = ""
        self._live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def __enter__(self) -> Self:
        self._draw()
        return self

    def update(self, detail: str) -> None:
        """Replace the detail beside the title."""
        self._detail = detail
        self._draw()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        mark = click.style("ok", fg="green") if error is None else click.style("failed", fg="red")
        clear = "\r\x1b[2K" if self._live else ""
        say(f"{clear}{self._title} … {self._detail + ' ' if self._detail else ''}{mark}")

    def _draw(self) -> None:
        if self._live:
            click.echo(f"\r\x1b[2K{self._title} … {self._detail}", err=True, nl=False)
