"""Findings for people: in full with the source line, or one line each.

Owns the form of language.md section 8. Secrets in a source line are masked. Pure: texts in, text out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from imageworks.diagnostics import arithmetic
from imageworks.diagnostics.model import Applicability, Diagnostic, Fix, Label, Severity, Span
from imageworks.diagnostics.snippet import snippet, visible
from imageworks.values import dataclass

_MASKED_CODE = "IW306"
_MASK_KEEPS = 4
_SHORT = 20
"""Of a shorter secret nothing is shown."""
_ASCII = str.maketrans({"\u2026": "...", "\u00b7": "-"})
_COLOURS = {Severity.ERROR: "1;31", Severity.WARNING: "1;33", Severity.NOTE: "1;36"}
_FRAME = "34"
_LINE_END = re.compile(r"\r\n|\n|\r")
_NARROWEST_MARGIN = 5


def concise(diagnostics: Iterable[Diagnostic]) -> str:
    """`file:line:column: code message`, a line each."""
    return "".join(f"{_where(item)}{item.code}{_weight(item)} {visible(item.message)}\n" for item in diagnostics)


def full(
    diagnostics: Sequence[Diagnostic], texts: Mapping[str, str], *, colour: bool = False, unicode: bool = True
) -> str:
    """Every finding with its lines, reason and fix. `texts` maps a span's file to its text; `unicode` False gives ASCII."""
    lines = {name: _LINE_END.split(text) for name, text in _masked(diagnostics, texts).items()}
    said = "\n".join("\n".join(_Report(item, lines, colour).lines()) + "\n" for item in diagnostics)
    return said if unicode else said.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")


def _where(item: Diagnostic) -> str:
    return f"{_place(item.primary.span)}: " if item.primary is not None else ""


def _place(span: Span) -> str:
    return f"{span.file}:{span.line}:{span.column}"


def _weight(item: Diagnostic) -> str:
    return "" if item.severity is Severity.ERROR else f" {item.severity.value}:"


def _masked(diagnostics: Iterable[Diagnostic], texts: Mapping[str, str]) -> Mapping[str, str]:
    """`texts` with every secret behind stars, all but the first four characters of a long one."""
    masked = dict(texts)
    for item in diagnostics:
        if item.code == _MASKED_CODE and item.primary is not None and item.primary.span.file in masked:
            span, text = item.primary.span, masked[item.primary.span.file]
            kept = span.start + (_MASK_KEEPS if span.end - span.start >= _SHORT else 0)
            hidden = "".join(char if char in "\r\n" else "*" for char in text[kept : span.end])
            masked[span.file] = text[:kept] + hidden + text[span.end :]
    return masked


def ways_out(fixes: Sequence[Fix]) -> Sequence[str]:
    """A line for each safe fix; all others share one, because a person chooses among them."""
    safe = [f"fix (safe): {fix.text}" for fix in fixes if fix.applicability is Applicability.SAFE]
    others = [fix for fix in fixes if fix.applicability is not Applicability.SAFE]
    if not others:
        return safe
    word = "fix (choose)" if len(others) > 1 or others[0].edits else "fix"
    return [*safe, f"{word}: {' | '.join(fix.text for fix in others)}"]


@dataclass(frozen=True, slots=True)
class _Report:
    """One finding in full."""

    item: Diagnostic
    texts: Mapping[str, Sequence[str]]
    colour: bool

    def lines(self) -> Iterable[str]:
        style = _COLOURS[self.item.severity]
        head = (
            f"{self._paint(self.item.code + _weight(self.item), style)} {self._paint(visible(self.item.message), '1')}"
        )
        primary = self.item.primary
        yield head if primary is None else f"{head}   {_place(primary.span)}"
        shown = [(label, "-", "1;34") for label in self.item.secondary]
        if primary is not None:
            shown.append((primary, "^", style))
        for label, mark, colour in sorted(
            shown, key=lambda entry: (entry[0].span.file, entry[0].span.line, entry[0].span.column)
        ):
            yield from self._block(label, mark, colour)
        for line in (*arithmetic.lines(self.item.sums), *self.item.notes, *ways_out(self.item.fixes)):
            yield f"{self._gutter('=')} {visible(line)}"

    @property
    def _margin(self) -> int:
        """Width of the column of line numbers."""
        spans = [label.span for label in self.item.secondary] + ([self.item.primary.span] if self.item.primary else [])
        return max([_NARROWEST_MARGIN, *(len(str(span.line)) for span in spans)])

    def _gutter(self, sign: str, number: str = "") -> str:
        return self._paint(f"{number:>{self._margin}} {sign}", _FRAME)

    def _block(self, label: Label, mark: str, colour: str) -> Iterable[str]:
        """The source line of `label`, with its marks and text below; the place where it is in another file."""
        span = label.span
        if self.item.primary is not None and span.file != self.item.primary.span.file:
            yield f"{self._gutter('>')} {_place(span)}"
        text = f" {visible(label.text)}" if label.text else ""
        lines = self.texts.get(span.file, ())
        if span.line > len(lines):
            if text:
                yield f"{self._gutter('|')}{text}"
            return
        line = lines[span.line - 1]
        end = span.end_column - 1 if span.end_line == span.line else len(line)
        source, marks = snippet(line, span.column - 1, end, mark)
        yield f"{self._gutter('|', str(span.line))} {source}".rstrip()
        blanks = marks[: len(marks) - len(marks.lstrip())]
        yield f"{self._gutter('|')} {blanks}{self._paint(marks.lstrip() + text, colour)}"

    def _paint(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self.colour and text else text
