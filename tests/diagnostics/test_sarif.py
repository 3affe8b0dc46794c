from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from imageworks.diagnostics.model import Applicability, Diagnostic, Edit, Fix, Label, Severity, Shortfall, Term, Unit
from imageworks.diagnostics.sarif import sarif
from imageworks.model.load import Outcome, load
from imageworks.source.files import MemoryFiles
from imageworks.source.text import SourceFile

SCHEMA = Path(__file__).parents[1] / "data" / "sarif-2.1.0-rtm.5.json"


@pytest.fixture(scope="module")
def valid() -> Callable[[str], dict[str, Any]]:
    """`valid(text)`: the run of a log that keeps to the standard's own schema."""
    validator = jsonschema.Draft4Validator(json.loads(SCHEMA.read_text("utf-8")))

    def check(text: str) -> dict[str, Any]:
        log = json.loads(text)
        assert [error.message for error in validator.iter_errors(log)] == []
        run: dict[str, Any] = log["runs"][0]
        return run

    return check


def test_every_example_is_a_valid_log(
    outcome: Callable[[str], Outcome], code: str, valid: Callable[[str], dict[str, Any]]
) -> None:
    found = outcome(code).diagnostics
    run = valid(sarif(found, "1.2.3"))
    assert [result["ruleId"] for result in run["results"]] == [item.code for item in found]
    assert [run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] for result in run["results"]] == [
        item.code for item in found
    ]


def test_no_findings_are_a_valid_log(valid: Callable[[str], dict[str, Any]]) -> None:
    assert valid(sarif((), "1.2.3"))["results"] == []


def test_places_count_characters_and_names_are_uris(valid: Callable[[str], dict[str, Any]]) -> None:
    text = 'version: 1\nmodels:\n  m: {aliases: ["日本 😀"], bakend: vllm}  # größer\n'
    found = load("stäck 1.yaml", MemoryFiles({"stäck 1.yaml": text}), "x").diagnostics
    (result,) = (item for item in valid(sarif(found, "1"))["results"] if item["ruleId"] == "IW201")
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "st%C3%A4ck%201.yaml"
    region = place["region"]
    assert text.splitlines()[2][region["startColumn"] - 1 : region["endColumn"] - 1] == "bakend"
    assert text[region["charOffset"] :][: region["charLength"]] == "bakend"
    (change,) = result["fixes"][0]["artifactChanges"]
    assert change["artifactLocation"]["uri"] == place["artifactLocation"]["uri"]
    assert change["replacements"] == [{"deletedRegion": region, "insertedContent": {"text": "backend"}}]


def test_a_finding_carries_its_sum_its_neighbours_and_only_fixes_with_edits(
    valid: Callable[[str], dict[str, Any]],
) -> None:
    span = SourceFile("a.yaml", "weights: 9GiB\n").span(9, 13)
    sums = Shortfall("GPU 0", Unit.BYTES, (Term("weights", 9 << 30, "declared", span),), (Term("GPU", 8 << 30),))
    fixes = (Fix("think"), Fix("less", Applicability.CHOOSE, (Edit(span, "8GiB"),)))
    item = Diagnostic(
        "IW410", "too large", Label(span, "here"), Severity.NOTE, (Label(span, "there"),), ("a note",), fixes, (sums,)
    )
    (result,) = valid(sarif([item], "1"))["results"]
    assert result["level"] == "note"
    assert result["message"]["text"].splitlines() == [
        "too large",
        "here",
        "weights  9.00  declared  a.yaml:1    GPU            8.00",
        "needed   9.00  GiB                   usable, GPU 0  8.00  GiB",
        "a note",
        "fix: think",
        "fix: less",
    ]
    assert result["relatedLocations"][0]["message"]["text"] == "there"
    assert [fix["description"]["text"] for fix in result["fixes"]] == ["less"]


def test_what_stands_in_no_file_has_no_place(valid: Callable[[str], dict[str, Any]]) -> None:
    span = SourceFile("<built-in>", "roles: 1").span(0, 5)
    (result,) = valid(sarif([Diagnostic("IW402", "x", Label(span), secondary=(Label(span),))], "1"))["results"]
    assert result["locations"] == []
    assert "relatedLocations" not in result
