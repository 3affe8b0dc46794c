"""Findings as SARIF 2.1.0, the format of code scanning services.

Owns the mapping to the standard: columns count characters (`unicodeCodePoints`), names of files are relative URIs,
what stands in the built-in layer has no place in the user's tree. Equal findings give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from imageworks.diagnostics import arithmetic
from imageworks.diagnostics.codes import CODES
from imageworks.diagnostics.model import Diagnostic, Fix, Label, Severity, Span

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}


def sarif(diagnostics: Iterable[Diagnostic], version: str) -> str:
    """A SARIF log of one run, without a trailing newline. `version` is that of ImageWorks."""
    found = tuple(diagnostics)
    codes = sorted({item.code for item in found})
    driver = {"name": "ImageWorks", "version": version, "rules": [_rule(code) for code in codes]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(item, codes.index(item.code)) for item in found],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _rule(code: str) -> Mapping[str, Any]:
    entry = CODES[code]
    return {
        "id": code,
        "shortDescription": {"text": entry.title},
        "fullDescription": {"text": " ".join(entry.explanation)},
        "help": {"text": f"imageworks explain {code}"},
    }


def _result(item: Diagnostic, rule: int) -> Mapping[str, Any]:
    said = [item.message, *((item.primary.text,) if item.primary and item.primary.text else ())]
    said += [*arithmetic.lines(item.sums), *item.notes, *(f"fix: {fix.text}" for fix in item.fixes)]
    places = [_location(item.primary)] if item.primary is not None and _is_file(item.primary.span) else []
    related = [_location(label) for label in item.secondary if _is_file(label.span)]
    fixes = [_fix(fix) for fix in item.fixes if fix.edits]
    result: dict[str, Any] = {"ruleId": item.code, "ruleIndex": rule, "level": _LEVELS[item.severity]}
    result |= {"message": {"text": "\n".join(said)}, "locations": places}
    return result | ({"relatedLocations": related} if related else {}) | ({"fixes": fixes} if fixes else {})


def _is_file(span: Span) -> bool:
    return not span.file.startswith("<")


def _location(label: Label) -> Mapping[str, Any]:
    place = {"artifactLocation": {"uri": quote(label.span.file)}, "region": _region(label.span)}
    return {"physicalLocation": place} | ({"message": {"text": label.text}} if label.text else {})


def _region(span: Span) -> Mapping[str, int]:
    return {
        "startLine": span.line,
        "startColumn": span.column,
        "endLine": span.end_line,
        "endColumn": span.end_column,
        "charOffset": span.start,
        "charLength": span.end - span.start,
    }


def _fix(fix: Fix) -> Mapping[str, Any]:
    files = sorted({edit.span.file for edit in fix.edits})
    return {"description": {"text": fix.text}, "artifactChanges": [_change(fix, file) for file in files]}


def _change(fix: Fix, file: str) -> Mapping[str, Any]:
    edits: Sequence[Mapping[str, Any]] = [
        {"deletedRegion": _region(edit.span), "insertedContent": {"text": edit.replacement}}
        for edit in fix.edits
        if edit.span.file == file
    ]
    return {"artifactLocation": {"uri": quote(file)}, "replacements": edits}
