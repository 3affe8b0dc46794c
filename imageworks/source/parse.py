"""YAML text -> tree.

Owns the loop that goes on behind a mistake: what the parser refuses is told in plain words, repaired or cut out,
and the rest is read, so that one run finds all. Never raises, whatever the text. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from imageworks.diagnostics.model import Diagnostic, Fix, Label
from imageworks.source.build import Builder
from imageworks.source.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingStartEvent,
    MarkedYAMLError,
    ScalarEvent,
    Unsure,
    YAMLError,
    exact,
    quick,
)
from imageworks.source.repair import Repaired
from imageworks.source.syntax import Problem, judge
from imageworks.source.text import SourceFile
from imageworks.source.tree import MapNode
from imageworks.values import dataclass

MOST_ROUNDS = 25


@dataclass(frozen=True, slots=True)
class Parsed:
    """What could be read. `cut` names the top-level sections that had to be left out; `root` is None without any."""

    root: MapNode | None
    diagnostics: tuple[Diagnostic, ...]
    cut: frozenset[str] = frozenset()


def parse(source: SourceFile) -> Parsed:
    """Read `source`. A tree is returned beside findings whenever something sensible remains."""
    repaired = Repaired(source.text, ())
    found: list[Diagnostic] = []
    cut: set[str] = set()
    for _ in range(MOST_ROUNDS):
        builder, problem = _built(source, repaired)
        if problem is None:
            return _finish(source, builder, found, frozenset(cut))
        finding = judge(source, repaired, problem)
        found.append(finding.diagnostic)
        cut |= finding.cut
        if finding.repaired is None:
            break
        repaired = finding.repaired
    return Parsed(None, tuple(found), frozenset(cut))


def _finish(source: SourceFile, builder: Builder, found: list[Diagnostic], cut: frozenset[str]) -> Parsed:
    found += builder.found
    root = builder.root
    if builder.too_deep:
        return Parsed(None, tuple(found), cut)
    if isinstance(root, MapNode):
        return Parsed(root, tuple(found), cut)
    empty = root is None or not source.text.strip() or root.span.end == root.span.start
    if found:
        return Parsed(None, tuple(found), cut)
    if empty:
        fix = Fix("imageworks init writes a small one; the shortest is `version: 1` and a model")
        return Parsed(None, (Diagnostic("IW107", f"{source.name} is empty", Label(source.span(0, 0)), fixes=(fix,)),))
    label = Label(root.span if root else source.span(0, 1), "`key: value` lines are wanted")
    return Parsed(None, (Diagnostic("IW108", f"the top level of {source.name} is not a map", label),))


def _built(source: SourceFile, repaired: Repaired) -> tuple[Builder, Problem | None]:
    builder = Builder()
    try:
        return builder, _read(source, repaired, builder, quick(repaired.text))
    except Unsure:
        builder = Builder()
        return builder, _read(source, repaired, builder, exact(repaired.text))


def _read(source: SourceFile, repaired: Repaired, builder: Builder, events: Iterator[Any]) -> Problem | None:
    """Feed all `events` to `builder`; the parser's complaint when there is one. Raises Unsure."""
    documents = 0
    try:
        for event in events:
            documents += isinstance(event, DocumentStartEvent)
            if documents > 1:
                return Problem("several documents", event.start_mark.index, None)
            _feed(source, repaired, builder, event)
            if builder.too_deep:
                return None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        context = error.context_mark.index if error.context_mark is not None else None
        return Problem(error.problem or "", mark.index if mark is not None else 0, context)
    except (
        YAMLError,
        ValueError,
        IndexError,
        OverflowError,
        RecursionError,
        AttributeError,
        TypeError,
        AssertionError,
    ) as error:
        # the pure-Python parser lets such errors escape on hostile escapes and directives
        return Problem(f"unreadable: {error}".splitlines()[0], 0, None)
    return None


def _feed(source: SourceFile, repaired: Repaired, builder: Builder, event: Any) -> None:
    start, end = event.start_mark.index, event.end_mark.index
    if repaired.repairs:
        start, end = repaired.original_offset(start), repaired.original_offset(end)
    span = source.span(start, end)
    if isinstance(event, AliasEvent):
        builder.alias(span)
    elif isinstance(event, ScalarEvent):
        plain = not event.style
        builder.scalar(event.value, span, plain=plain, anchor=event.anchor is not None, tag=event.tag is not None)
    elif isinstance(event, CollectionStartEvent):
        is_map = isinstance(event, MappingStartEvent)
        builder.start(span, is_map=is_map, anchor=event.anchor is not None, tag=event.tag is not None)
    elif isinstance(event, CollectionEndEvent):
        builder.end(span)
