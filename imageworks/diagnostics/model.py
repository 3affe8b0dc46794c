"""The shape of a finding.

Owns the values every compiler stage returns beside its result. A user's mistake is a `Diagnostic`,
never an exception; all of one run are collected. Rendering lives in `human` and `machine`,
the texts behind a code in `codes`. Imports nothing of ours.
"""

from __future__ import annotations

from enum import StrEnum

from imageworks.values import dataclass


class Severity(StrEnum):
    """How much a finding weighs: only an error stops the compiler."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of one source file.

    `start` and `end` are character offsets (end exclusive); lines and columns count from 1,
    columns in characters. `file` is the name as the user gave it, or `<built-in>`.
    """

    file: str
    start: int
    end: int
    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True, slots=True)
class Label:
    """A span and what is to be said right beside it."""

    span: Span
    text: str = ""


class Applicability(StrEnum):
    """Whether a fix may be applied without asking."""

    SAFE = "safe"
    CHOOSE = "choose"


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace the text of `span` by `replacement`."""

    span: Span
    replacement: str


@dataclass(frozen=True, slots=True)
class Fix:
    """What to do about a finding; `edits` is empty when only a person can do it."""

    text: str
    applicability: Applicability = Applicability.CHOOSE
    edits: tuple[Edit, ...] = ()


class Unit(StrEnum):
    """What a sum counts."""

    BYTES = "bytes"
    TOKENS = "tokens"
    MODELS = "models"
    PORTS = "ports"


@dataclass(frozen=True, slots=True)
class Term:
    """One named part of a sum, in the sum's unit (negative where it takes away), with its origin and its place."""

    name: str
    amount: int
    why: str = ""
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Shortfall:
    """The arithmetic that failed: the terms `needed` sum to more than the terms `available` at `where`."""

    where: str
    unit: Unit
    needed: tuple[Term, ...]
    available: tuple[Term, ...]

    @property
    def excess(self) -> int:
        """How much is missing; zero or less when nothing is."""
        return sum(term.amount for term in self.needed) - sum(term.amount for term in self.available)


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding. `code` is a key of `codes.CODES`; `notes` hold the reason, one line each, `sums` what did not add up."""

    code: str
    message: str
    primary: Label | None
    severity: Severity = Severity.ERROR
    secondary: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    fixes: tuple[Fix, ...] = ()
    sums: tuple[Shortfall, ...] = ()

    @property
    def is_error(self) -> bool:
        """True when the compiler must not write output."""
        return self.severity is Severity.ERROR
