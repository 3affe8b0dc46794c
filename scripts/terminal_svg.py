"""Turn captured terminal output into an SVG picture for the README.

    script -qec "./scripts/demo --once" /dev/null | python scripts/terminal_svg.py '$ ./scripts/demo --once' docs/assets/demo.svg

Owns the picture only: the text must come from a real run. Understands the colours and bold of SGR sequences and a
carriage return (the rest of the line is written over); other control sequences are left out. Bytes in, same bytes out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

COLUMNS = 100
CHARACTER_WIDTH, LINE_HEIGHT, MARGIN, BAR = 8.4, 20, 16, 30
COLOURS = ("#484f58", "#ff7b72", "#7ee787", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#c9d1d9")
FOREGROUND, BACKGROUND, FRAME = "#c9d1d9", "#0d1117", "#30363d"
_SEQUENCE = re.compile(r"\x1b\[([0-9;]*)m|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07")


@dataclass(frozen=True, slots=True)
class Style:
    """How a run of characters looks."""

    colour: str = FOREGROUND
    bold: bool = False
    dim: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """Characters of one style."""

    text: str
    style: Style


def runs(line: str) -> Iterator[Run]:
    """The runs of one line, control sequences taken out."""
    style, at = Style(), 0
    for match in _SEQUENCE.finditer(line):
        if match.start() > at:
            yield Run(line[at : match.start()], style)
        style, at = styled(style, match[1]) if match[1] is not None else style, match.end()
    if at < len(line):
        yield Run(line[at:], style)


def styled(style: Style, codes: str) -> Style:
    """`style` after an SGR sequence with `codes` (ECMA-48 8.3.117); unknown codes change nothing."""
    for code in [int(part or 0) for part in codes.split(";")]:
        if code == 0:
            style = Style()
        elif code in (1, 22):
            style = replace(style, bold=code == 1, dim=False)
        elif code == 2:  # noqa: PLR2004 - SGR 2 is faint
            style = replace(style, dim=True)
        elif code in range(30, 38) or code in range(90, 98):
            style = replace(style, colour=COLOURS[code % 10])
        elif code == 39:  # noqa: PLR2004 - SGR 39 is the default colour
            style = replace(style, colour=FOREGROUND)
    return style


def visible(text: str) -> Iterator[str]:
    """The lines as they stand in the end: what came after the last carriage return, wrapped at COLUMNS."""
    for line in text.rstrip("\n").split("\n"):
        shown = line.rstrip("\r").rpartition("\r")[2]
        plain = _SEQUENCE.sub("", shown)
        if len(plain) <= COLUMNS:
            yield shown
        else:
            yield from (plain[at : at + COLUMNS] for at in range(0, len(plain), COLUMNS))


def picture(lines: Sequence[str], title: str) -> str:
    """The SVG text."""
    width = round(COLUMNS * CHARACTER_WIDTH + 2 * MARGIN)
    height = BAR + len(lines) * LINE_HEIGHT + 2 * MARGIN
    body = "\n".join(_row(line, BAR + MARGIN + (number + 1) * LINE_HEIGHT - 6) for number, line in enumerate(lines))
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">
<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}" stroke="{FRAME}"/>
<text x="{width / 2:g}" y="20" fill="#8b949e" font-family="sans-serif" font-size="13" text-anchor="middle">{escape(title)}</text>
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="14" xml:space="preserve">
{body}
</g>
</svg>
"""


def _row(line: str, y: int) -> str:
    spans, column = [], 0
    for run in runs(line):
        if run.text.strip():
            weight = ' font-weight="bold"' if run.style.bold else ""
            faint = ' opacity="0.65"' if run.style.dim else ""
            x = f"{MARGIN + column * CHARACTER_WIDTH:.1f}"
            spans.append(
                f'<tspan x="{x}" fill="{run.style.colour}"{weight}{faint}>{escape(run.text, quote=False)}</tspan>'
            )
        column += len(run.text)
    return f'<text y="{y}">{"".join(spans)}</text>'


def main(arguments: Sequence[str]) -> int:
    """Write the picture of standard input; arguments: title, file."""
    if len(arguments) != 2:  # noqa: PLR2004 - title and file
        print("usage: terminal_svg.py TITLE FILE.svg < captured-output", file=sys.stderr)
        return 1
    title, file = arguments
    lines = [f"\x1b[1m{title}\x1b[0m" if title.startswith("$") else title, *visible(sys.stdin.read())]
    Path(file).write_text(picture(lines, title.removeprefix("$ ")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
