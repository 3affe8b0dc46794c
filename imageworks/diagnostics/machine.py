"""Findings for machines: JSON, and annotations of GitHub Actions.

Owns both formats. The JSON is a list in the given order with every span, note and fix; keys are sorted, so equal
findings give equal bytes.
"""

from __future__ import annotations

import json as json_text
from collections.abc import Iterable
from dataclasses import asdict

from imageworks.diagnostics import arithmetic
from imageworks.diagnostics.model import Diagnostic, Severity

_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


def json(diagnostics: Iterable[Diagnostic]) -> str:
    """A JSON list without a trailing newline."""
    return json_text.dumps([asdict(item) for item in diagnostics], indent=2, sort_keys=True, ensure_ascii=False)


def github(diagnostics: Iterable[Diagnostic]) -> str:
    """One workflow command a finding, without a trailing newline (GitHub: workflow commands, escaping of data)."""
    return "\n".join(_command(item) for item in diagnostics)


def _command(item: Diagnostic) -> str:
    said = [item.message, *((item.primary.text,) if item.primary and item.primary.text else ())]
    said += [*arithmetic.lines(item.sums), *item.notes]
    said += [f"fix: {fix.text}" for fix in item.fixes]
    place = [f"title={_property(item.code)}"]
    if item.primary is not None:
        span = item.primary.span
        place = [
            f"file={_property(span.file)}",
            f"line={span.line}",
            f"col={span.column}",
            f"endLine={span.end_line}",
            *((f"endColumn={span.end_column}",) if span.line == span.end_line else ()),  # GitHub's own rule
            *place,
        ]
    return f"::{_LEVELS[item.severity]} {','.join(place)}::{_data(chr(10).join(said))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
