"""Files of older versions of the language, brought to the current one.

Owns the table of migrations, each a set of edits by span, so that everything else of a file stays byte for byte. Pure:
a text in, a text out. Judges nothing but the version: what else is wrong with a file is told by `imageworks check`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from imageworks.diagnostics.fixes import edited
from imageworks.diagnostics.model import Diagnostic, Edit, Fix, Label
from imageworks.source.parse import parse
from imageworks.source.text import SourceFile
from imageworks.source.tree import MapNode, ScalarNode

CURRENT = 1
"""The version of the language that this ImageWorks reads."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: what it did, in words; whether a file needs it; and the edits."""

    told: str
    needed: Callable[[MapNode], bool]
    edits: Callable[[SourceFile, MapNode], tuple[Edit, ...]]


@dataclass(frozen=True, slots=True)
class Migrated:
    """The new text with the steps that led to it; `text` is None when the file cannot be migrated, for `diagnostics`."""

    text: str | None
    steps: tuple[str, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()


def migrated(source: SourceFile) -> Migrated:
    """`source` in the current version of the language."""
    parsed = parse(source)
    if parsed.root is None or any(item.is_error for item in parsed.diagnostics):
        return Migrated(None, (), parsed.diagnostics)
    steps: list[str] = []
    root = parsed.root
    for migration in MIGRATIONS:
        if migration.needed(root):
            source = SourceFile(source.name, edited(source.text, migration.edits(source, root)))
            steps.append(migration.told)
            root = parse(source).root or root
    unknown = _unknown(root)
    return Migrated(source.text, tuple(steps)) if unknown is None else Migrated(None, (), (unknown,))


def _has_no_version(root: MapNode) -> bool:
    return "version" not in root.entries


def _add_version(source: SourceFile, root: MapNode) -> tuple[Edit, ...]:
    """A line before the first key, below the comments above it; inside the braces where the whole file is `{…}`."""
    start = root.span.start
    if source.text.startswith("{", start):
        first = f"version: 1{', ' if root.entries else ''}"
        start += 1
    else:
        line_end = "\r\n" if "\r\n" in source.text else "\n"
        first = f"version: 1{line_end}{' ' * (root.span.column - 1)}"
    return (Edit(source.span(start, start), first),)


def _is_quoted(root: MapNode) -> bool:
    node = root.get("version")
    return isinstance(node, ScalarNode) and not node.plain and node.text == "1"


def _unquote(source: SourceFile, root: MapNode) -> tuple[Edit, ...]:
    del source
    return (Edit(root.entries["version"].value.span, "1"),)


MIGRATIONS = (
    Migration("`version: 1` says which language this is", _has_no_version, _add_version),
    Migration("the version is a number, without quotes", _is_quoted, _unquote),
)
"""In the order of their versions. A new version of the language adds the steps that lead to it, and raises CURRENT."""


def _unknown(root: MapNode) -> Diagnostic | None:
    """What is wrong with the version of a file that no migration leads from; None for the current one."""
    node = root.get("version")
    if isinstance(node, ScalarNode) and node.text == str(CURRENT):
        return None
    text = node.text if isinstance(node, ScalarNode) else ""
    span = root.entries["version"].key if node is None or not text else node.span
    if text.isascii() and text.isdigit() and int(text) > CURRENT:
        message, fix = f"version {text} is newer than this ImageWorks", "update ImageWorks; it reads older files"
    else:
        message, fix = "this is no version of the language", f"version: {CURRENT}, if it was written for this one"
    return Diagnostic("IW210", message, Label(span, f"it knows version {CURRENT}"), fixes=(Fix(fix),))
