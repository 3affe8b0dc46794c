"""Did you mean: the known word nearest to a misspelt one.

Owns the one measure of nearness, so that every finding proposes alike.
"""

from __future__ import annotations

from collections.abc import Iterable


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
