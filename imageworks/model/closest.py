"""Did you mean: the known word nearest to a misspelt one.

Owns the one measure of nearness, so that every finding proposes alike, and the line between a proposal and a repair
that needs nobody to choose: a slip of the fingers in letters, with one candidate only, or a name cut short.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from imageworks.diagnostics.model import Applicability, Edit, Fix, Span

SHORT = 5
"""Words below this length may miss one letter, longer ones two."""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, or None when none is near enough to be meant.

    >>> closest("captoin", ["keywords", "caption"])
    'caption'
    """
    import difflib  # noqa: PLC0415 - only a mistake needs it

    words = sorted(set(known))
    folded = {name.lower().replace("-", "_"): name for name in words}
    key = word.lower().replace("-", "_")
    if key in folded:
        return folded[key]
    near = difflib.get_close_matches(word[:100], words, n=1, cutoff=0.6)
    return near[0] if near else None


def meant(word: str, known: Iterable[str]) -> str | None:
    """The one known word that `word` must be a slip of; None when there are several, or digits differ.

    >>> meant("captoin", ["caption", "keywords"]), meant("q4_0", ["q4_1"]), meant("startup", ["start_timeout"])
    ('caption', None, None)
    """
    words = sorted(set(known))
    folded = [name for name in words if _folded(name) == _folded(word)]
    whole = [name for name in words if name.startswith(word) and not name.removeprefix(word)[:1].isalnum()]
    slips = sorted((_slips(word, name), name) for name in words if _alike(word, name))
    near = [name for count, name in slips if count == slips[0][0] and count <= _allowed(word)]
    for found in (folded, near, whole):
        if found:
            return found[0] if len(found) == 1 else None
    return None


def renaming(span: Span, word: str, near: str, known: Iterable[str], *, told: str = "rename", sign: str = "") -> Fix:
    """The fix that writes `near` and `sign` at `span`: safe where nothing else can be meant, else for a person."""
    edits = (Edit(span, f"{near}{sign}"),)
    if meant(word, known) == near:
        return Fix(told, Applicability.SAFE, edits)
    return Fix(f"{near}{sign}, if that is meant", Applicability.CHOOSE, edits)


def _folded(word: str) -> str:
    return word.lower().replace("-", "_")


def _allowed(word: str) -> int:
    return 1 if len(word) < SHORT else 2


def _alike(word: str, name: str) -> bool:
    return abs(len(word) - len(name)) <= _allowed(word) and re.findall("[0-9]+", word) == re.findall("[0-9]+", name)


def _slips(one: str, other: str) -> int:
    """Letters to insert, drop, replace or swap with their neighbour (optimal string alignment distance)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            best = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and (a, one[i - 2]) == (other[j - 2], b):
                best = min(best, before[j - 2] + 1)
            row.append(best)
        before, last = last, row
    return last[-1]
