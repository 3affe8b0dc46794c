"""Write docs/errors/: a page for each diagnostic code and their index, from the texts of `imageworks explain`.

Owns the pages' layout; every word is that of imageworks/diagnostics/codes. Pages of codes that are gone are removed.
With --check nothing is written, and a stale page is an exit code of 2.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

from imageworks.diagnostics.codes import CODES, Code

FOLDER = Path(__file__).parents[1] / "docs" / "errors"
MADE = "<!-- Written by scripts/gen_errors.py from imageworks/diagnostics/codes; do not edit. -->"
AREAS = {
    "1": "Syntax",
    "2": "Keys and values",
    "3": "References and safety",
    "4": "Resources",
    "5": "Targets",
    "6": "Generated files",
    "7": "Prompts",
    "8": "Import and migration",
}
INDEX = f"""\
# Errors

{MADE}

Every finding has a code, a place, a reason and a way out. `imageworks explain CODE` shows the same texts without a
network.
"""


def pages() -> Mapping[str, str]:
    """Every file of docs/errors by its name."""
    return {"index.md": index(), **{f"{code}.md": page(code, entry) for code, entry in CODES.items()}}


def index() -> str:
    """The list of all codes, by area."""
    return "\n".join([INDEX, *_areas()])


def _areas() -> Iterator[str]:
    for digit, codes in groupby(sorted(CODES), key=lambda code: code[2]):
        yield f"## {AREAS[digit]}\n"
        yield from (f"- [{code}]({code}.md): {_plain(CODES[code].title)}" for code in codes)
        yield ""


def page(code: str, entry: Code) -> str:
    """The page of one code."""
    parts = [f"# {code}: {_plain(entry.title)}", MADE, *map(_plain, entry.explanation)]
    for word, example in (("Wrong", entry.bad), ("Right", entry.good)):
        if example:
            parts.append(f"{word}:\n\n```text\n{example}\n```")
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """`text` with `<` kept from being read as HTML, except inside code."""
    return "`".join(piece if at % 2 else piece.replace("<", "&lt;") for at, piece in enumerate(text.split("`")))


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check say which are stale; returns the exit code."""
    wanted = pages()
    there = {file.name: file.read_text("utf-8") for file in FOLDER.glob("*.md")}
    stale = sorted(name for name in {*wanted, *there} if wanted.get(name) != there.get(name))
    if arguments == ["--check"]:
        for name in stale:
            print(f"errors/{name} is stale; run: python scripts/gen_errors.py", file=sys.stderr)
        return 2 if stale else 0
    FOLDER.mkdir(exist_ok=True)
    for name in stale:
        if name in wanted:
            (FOLDER / name).write_text(wanted[name], "utf-8")
        else:
            (FOLDER / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
