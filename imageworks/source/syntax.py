"""A YAML parser's complaint -> a finding in plain words, and a text that can be read on.

Owns IW100, IW101, IW102 and IW106. A mistake with an obvious meaning (an unquoted range, a tab) is repaired for
the rest of the run; behind any other the whole top-level section is left out.
"""

from __future__ import annotations

import re

from imageworks.diagnostics.model import Applicability, Diagnostic, Edit, Fix, Label
from imageworks.source.repair import Repair, Repaired
from imageworks.source.text import SourceFile
from imageworks.values import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """What a parser said, at an offset of the repaired text; `context` is where the broken thing began."""

    text: str
    offset: int
    context: int | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The finding, and the text to read instead; None ends the reading. `cut` names left-out sections."""

    diagnostic: Diagnostic
    repaired: Repaired | None
    cut: frozenset[str] = frozenset()


_RANGE = re.compile(r"(?<=[\s:,\[{])>(?:=[ ]*|(?=[0-9]))[^\s,#\]}][^\n,#\]}]*")
_WORDS: tuple[tuple[str, str, str], ...] = (
    (
        "mapping values are not allowed",
        "a second `key:` where a value was expected",
        "put the text in quotes, or the key on its own line",
    ),
    ("expected <block end>", "this line is not indented like its neighbours", "two blanks for each level"),
    ("did not find expected key", "this line is not indented like its neighbours", "two blanks for each level"),
    ("did not find expected '-' indicator", "a list item is wanted here", "`- value`, indented like the items above"),
    ("or '}'", "a `{` is not closed", "a `,` between entries and a `}` at the end"),
    ("or ']'", "a `[` is not closed", "a `,` between items and a `]` at the end"),
    ("end of stream", "a quote is not closed", "the text began here and never ends"),
    ("document separator", "a quote is not closed", "the text began here and never ends"),
    ("could not find expected ':'", "this is neither a key nor a value", "`key: value`"),
    ("escape", "unknown escape in a quoted text", "in \"…\" a backslash begins an escape; use '…', or write \\\\"),
    ("undefined alias", "anchors and merge keys are not part of this language", "put shared values under `defaults:`"),
    ("cannot start any token", "this character needs quotes", "a text may not begin with it"),
    ("block collections are not allowed", "a block cannot begin here", "start it on a new line, or use { } and [ ]"),
    ("block sequence entries are not allowed", "a list cannot begin here", "start it on a new line"),
)


def judge(source: SourceFile, repaired: Repaired, problem: Problem) -> Judgement:
    """Say what is wrong and how to read on."""
    offset = repaired.original_offset(problem.offset)
    if problem.text == "several documents":
        return _several(source, repaired, offset)
    return _range(source, repaired, offset) or _tab(source, repaired, offset) or _other(source, repaired, problem)


def _several(source: SourceFile, repaired: Repaired, offset: int) -> Judgement:
    label = Label(source.span(offset, offset + 3), "a second document begins")
    fix = Fix("keep one; a stack is one document")
    finding = Diagnostic("IW106", "several documents in one file", label, fixes=(fix,))
    return Judgement(finding, repaired.with_repair(Repair(offset, len(source.text), "")))


def _range(source: SourceFile, repaired: Repaired, offset: int) -> Judgement | None:
    start, end = source.line_bounds(source.place(offset)[0])
    match = next(
        (match for match in _RANGE.finditer(source.text, start, end) if match.start() <= offset <= match.end()), None
    )
    if match is None or match[0].count('"'):
        return None
    value = match[0].rstrip()
    span = source.span(match.start(), match.start() + len(value))
    quoted = f'"{value}"'
    fix = Fix(f"{quoted}", Applicability.SAFE, (Edit(span, quoted),))
    label = Label(source.span(span.start, span.start + 1), "YAML gives `>` a meaning of its own here")
    after = repaired.with_repair(Repair(span.start, span.end, quoted))
    return Judgement(Diagnostic("IW101", "a range needs quotes", label, fixes=(fix,)), after) if after else None


def _tab(source: SourceFile, repaired: Repaired, offset: int) -> Judgement | None:
    start, end = source.line_bounds(source.place(offset)[0])
    indent = _indent(source.text, start)
    in_indent = "\t" in indent and offset <= start + len(indent)
    if not in_indent and source.text[offset : offset + 1] != "\t":
        return None
    at = (start, start + len(indent)) if in_indent else (offset, offset + 1)
    blanks = _indent_of_neighbour(source, repaired, start) if in_indent else " "
    span = source.span(*at)
    told = f"{len(blanks)} blanks, as the lines around it" if in_indent else "a blank"
    fix = Fix(told, Applicability.SAFE, (Edit(span, blanks),))
    tab = source.text.index("\t", at[0], end)
    label = Label(source.span(tab, tab + 1), "YAML allows only blanks" if in_indent else "a blank is wanted")
    message = "tab in indentation" if in_indent else "tab between words"
    after = repaired.with_repair(Repair(*at, blanks))
    return Judgement(Diagnostic("IW102", message, label, fixes=(fix,)), after) if after else None


def _indent_of_neighbour(source: SourceFile, repaired: Repaired, start: int) -> str:
    """Blanks for the line at `start`: those of the line above with the same indent, one level more below a bare `key:`."""
    mended = {repair.start: repair.text for repair in repaired.repairs}
    own = _indent(source.text, start)
    for line in range(source.place(start)[0] - 1, 0, -1):
        above, end = source.line_bounds(line)
        raw = _indent(source.text, above)
        text = source.text[above + len(raw) : end]
        if not text or text.startswith("#"):
            continue
        blanks = mended.get(above, raw).replace("\t", "  ")
        if raw == own:
            return blanks
        if "\t" not in raw or own.startswith(raw):
            return blanks + ("  " if re.search(r":\s*(#.*)?$", text) else "")
    return ""


def _indent(text: str, start: int) -> str:
    end = start
    while text[end : end + 1] in {" ", "\t"}:
        end += 1
    return text[start:end]


def _other(source: SourceFile, repaired: Repaired, problem: Problem) -> Judgement:
    place = problem.offset
    words = next((words for words in _WORDS if words[0] in problem.text), None)
    unclosed = words is not None and words[1].endswith("not closed") and problem.context is not None
    offset = repaired.original_offset(problem.context if unclosed and problem.context is not None else place)
    offset = min(offset, max(len(source.text) - 1, 0))
    message, label = (words[1], words[2]) if words else ("not valid YAML", problem.text or "the reader stops here")
    finding = Diagnostic("IW100", message, Label(source.span(offset, offset + 1), label))
    start, end, name = _section(source, offset)
    if name is None:
        return Judgement(finding, None)
    after = repaired
    for repair in repaired.repairs:
        if start <= repair.start < end:
            after = Repaired(source.text, tuple(other for other in after.repairs if other != repair))
    return Judgement(finding, after.with_repair(Repair(start, end, "")), frozenset({name}))


_TOP = re.compile(r"^(?:\"([^\"\n]*)\"|'([^'\n]*)'|([^\s#\-\[\]{},\"'&*!|>%@`?:][^\n#:]*)):(?=\s|$)", re.MULTILINE)


def _section(source: SourceFile, offset: int) -> tuple[int, int, str | None]:
    """Bounds and name of the top-level section around `offset`; name None when there is none."""
    starts = list(_TOP.finditer(source.text))
    before = [match for match in starts if match.start() <= offset]
    if not before:
        return 0, 0, None
    after = [match.start() for match in starts if match.start() > offset]
    name = next((group for group in before[-1].groups() if group is not None), "")
    return before[-1].start(), after[0] if after else len(source.text), name.strip()
