"""Applying the fixes that need no person: edits in, text out.

Owns which fixes count (safe ones, all their edits in one user's file) and the order of edits: from the back, so
that no edit moves the place of another. Pure; the files are the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from imageworks.diagnostics.model import Applicability, Diagnostic, Edit
from imageworks.values import dataclass


@dataclass(frozen=True, slots=True)
class Repair:
    """One file's new text, and the findings that its edits answer."""

    text: str
    fixed: tuple[Diagnostic, ...]


def repair(diagnostics: Iterable[Diagnostic], texts: Mapping[str, str]) -> Mapping[str, Repair]:
    """The files that change, by name. A fix whose edits touch those of an earlier one waits for the next round."""
    taken: dict[str, list[Edit]] = {}
    fixed: dict[str, list[Diagnostic]] = {}
    for item, edits in _safe(diagnostics):
        file = edits[0].span.file
        if file in texts and not any(_touch(edit, other) for edit in edits for other in taken.get(file, ())):
            taken.setdefault(file, []).extend(edits)
            fixed.setdefault(file, []).append(item)
    return {file: Repair(edited(texts[file], edits), tuple(fixed[file])) for file, edits in taken.items()}


def edited(text: str, edits: Iterable[Edit]) -> str:
    """`text` after all `edits`, which must not touch each other."""
    for edit in sorted(edits, key=lambda edit: edit.span.start, reverse=True):
        text = text[: edit.span.start] + edit.replacement + text[edit.span.end :]
    return text


def _safe(diagnostics: Iterable[Diagnostic]) -> Iterator[tuple[Diagnostic, tuple[Edit, ...]]]:
    """Each finding with its first safe fix that has edits in exactly one file."""
    for item in diagnostics:
        for fix in item.fixes:
            files = {edit.span.file for edit in fix.edits}
            if fix.applicability is Applicability.SAFE and len(files) == 1 and not files.pop().startswith("<"):
                yield item, fix.edits
                break


def _touch(one: Edit, other: Edit) -> bool:
    """True when the edits overlap, or start at the same place."""
    return one.span.start == other.span.start or (one.span.start < other.span.end and other.span.start < one.span.end)
