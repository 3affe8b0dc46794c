"""Draw the life of a model into docs/scheduler.md, from the table that the scheduler obeys.

Owns the drawing between the two marks; the rest of the page is written by hand. With --check nothing is written, and a
stale drawing is an exit code of 2.
"""

from __future__ import annotations

import sys
from pathlib import Path

from imageworks.runtime.residency import LAW, MOVING

PAGE = Path(__file__).parents[1] / "docs" / "scheduler.md"
BEGIN = "<!-- Drawn by scripts/gen_diagram.py from imageworks/runtime/residency.py; do not edit. -->"
END = "<!-- End of the drawing. -->"


def drawing() -> str:
    """The law as a mermaid diagram; what is written `moving` keeps others from loading and unloading there."""
    moving = ", ".join(sorted(MOVING))
    arrows = "\n".join(
        f"    {before} --> {after}: {step}"
        for (before, step), after in sorted(LAW.items(), key=lambda rule: (rule[0][0], rule[1], rule[0][1]))
    )
    return (
        f"{BEGIN}\n\n```mermaid\nstateDiagram-v2\n    [*] --> stopped\n{arrows}\n"
        "    classDef moving font-style:italic\n"
        f"    class {moving} moving\n```\n\n{END}"
    )


def drawn(page: str) -> str:
    """The page with the drawing of now. Raises ValueError for a page without the marks."""
    begin, end = page.index(BEGIN), page.index(END)
    return page[:begin] + drawing() + page[end + len(END) :]


def main(arguments: list[str]) -> int:
    """Write the page, or with --check compare."""
    found = PAGE.read_text("utf-8")
    if "--check" in arguments:
        return 0 if drawn(found) == found else 2
    PAGE.write_text(drawn(found), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
