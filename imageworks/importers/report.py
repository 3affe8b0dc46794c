"""What an import tells: every repair, refusal and open question, as findings with a place in the source.

Owns the collecting. The codes: IW800 unreadable, IW801 derived and so dropped, IW802 left out, IW803 repaired,
IW804 merged, IW805 cannot be said in this language, IW806 a person must decide, IW807 not understood, IW808 a secret.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from imageworks.diagnostics.model import Diagnostic, Fix, Label, Severity, Span

NOTES = frozenset({"IW801", "IW803", "IW804"})
"""Codes that only tell; the others are warnings, and IW800 is the one error."""


@dataclass(slots=True)
class Report:
    """Findings in the order in which they came up."""

    found: list[Diagnostic] = field(default_factory=list)

    def tell(self, code: str, message: str, span: Span | None, *notes: str, fix: str = "", label: str = "") -> None:
        """Add one finding; its severity follows from the code."""
        severity = Severity.ERROR if code == "IW800" else Severity.NOTE if code in NOTES else Severity.WARNING
        primary = Label(span, label) if span is not None else None
        self.found.append(Diagnostic(code, message, primary, severity, (), notes, (Fix(fix),) if fix else ()))
