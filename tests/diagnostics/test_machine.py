from __future__ import annotations

import json

from imageworks.diagnostics import machine
from imageworks.diagnostics.model import Applicability, Diagnostic, Edit, Fix, Label, Severity, Span

SPAN = Span("a,b:c.yaml", 3, 5, 2, 1, 2, 3)
FINDING = Diagnostic(
    "IW201",
    "50% of\nit",
    Label(SPAN, "here"),
    secondary=(Label(SPAN),),
    notes=("a note",),
    fixes=(Fix("rename", Applicability.SAFE, (Edit(SPAN, "new"),)),),
)


def test_json_holds_everything() -> None:
    (item,) = json.loads(machine.json([FINDING]))
    assert item["code"] == "IW201"
    assert item["severity"] == "error"
    assert item["primary"] == {
        "text": "here",
        "span": {"file": "a,b:c.yaml", "start": 3, "end": 5, "line": 2, "column": 1, "end_line": 2, "end_column": 3},
    }
    assert item["fixes"][0] == {
        "text": "rename",
        "applicability": "safe",
        "edits": [{"span": item["primary"]["span"], "replacement": "new"}],
    }
    assert machine.json([]) == "[]"


def test_json_is_the_same_for_the_same_findings() -> None:
    assert machine.json([FINDING, FINDING]) == machine.json((FINDING, FINDING))


def test_annotations_of_github_are_escaped() -> None:
    assert machine.github([FINDING]) == (
        "::error file=a%2Cb%3Ac.yaml,line=2,col=1,endLine=2,endColumn=3,title=IW201::50%25 of%0Ait%0Ahere%0Aa note%0Afix: rename"
    )


def test_annotations_know_weights_and_findings_without_a_place() -> None:
    assert machine.github([Diagnostic("IW603", "x", None, Severity.NOTE)]) == "::notice title=IW603::x"
    assert machine.github([Diagnostic("IW603", "x", None, Severity.WARNING)]) == "::warning title=IW603::x"
