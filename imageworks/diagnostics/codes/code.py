"""The text behind a diagnostic's code.

Owns the shape only; the texts stand in one file for each hundred (`iw1xx` … `iw7xx`), where later codes are added.
"""

from __future__ import annotations

from imageworks.values import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """What a code means: a title, the rule and its reason in paragraphs, and an example before and after the fix."""

    title: str
    explanation: tuple[str, ...]
    bad: str = ""
    good: str = ""
