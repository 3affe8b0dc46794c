"""A refusal of pydantic -> a finding with code, place, reason and fix.

Owns the translation and the wording of what the types themselves do not word: unknown and missing keys, unknown
words, wrong kinds, numbers out of bounds. One refusal gives at most one finding; refusals about values that were
refused before give none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from imageworks.diagnostics.model import Applicability, Diagnostic, Edit, Fix, Label, Span
from imageworks.model.closest import closest, renaming
from imageworks.model.grammar import keys_at, owners
from imageworks.model.sources import SOURCE_KINDS
from imageworks.model.stack import Stack
from imageworks.source.tree import BrokenNode, MapNode, Node, Path, ScalarNode, child

_SINGULAR = {"capabilities": "capability", "requires": "capability", "prefer_quantizations": "quantization"}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "above"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "below"),
}


class Spot:
    """Where a refusal points: the value, its key, and its parent, as far as the tree reaches."""

    def __init__(self, root: MapNode, loc: tuple[str | int, ...]) -> None:
        self.node: Node | None = root
        self.key: Span | None = None
        self.path: Path = ()
        self.beside: frozenset[str] = frozenset()
        self.last_key = root.span
        self.refused = False
        self.about_key = loc[-1:] == ("[key]",)
        for part in loc:
            if part == "[key]" or (isinstance(part, str) and part.startswith("<")):
                continue
            self._go(part)

    def _go(self, part: str | int) -> None:
        self.refused = self.refused or isinstance(self.node, BrokenNode)
        entries = self.node.entries if isinstance(self.node, MapNode) else {}
        entry = entries.get(str(part))
        self.key = entry.key if entry is not None else None
        self.beside = frozenset(name for name, other in entries.items() if entry and other.key.file == entry.key.file)
        self.last_key = self.key or self.last_key
        self.node = child(self.node, part)
        self.refused = self.refused or isinstance(self.node, BrokenNode)
        self.path = (*self.path, part)

    @property
    def name(self) -> str:
        """The nearest key's name."""
        return next((part for part in reversed(self.path) if isinstance(part, str)), "")

    @property
    def value(self) -> Span:
        """The value, or the nearest key above it."""
        return self.node.span if self.node is not None else self.last_key


def tell_all(root: MapNode, errors: Sequence[Any], top: type[BaseModel] = Stack) -> tuple[Diagnostic, ...]:
    """A finding for each refusal, less those that only follow from another: a misspelt key is not missing as well."""
    misspelt = {
        (error["loc"][:-1], closest(str(error["loc"][-1]), keys_at(Spot(root, error["loc"]).path[:-1], top)))
        for error in errors
        if error["type"] == "extra_forbidden"
    }
    told = (tell(root, error, top) for error in errors if not _follows(error, misspelt))
    return tuple(finding for finding in told if finding is not None)


def _follows(error: Any, misspelt: set[tuple[Any, str | None]]) -> bool:
    return error["type"] == "missing" and (error["loc"][:-1], error["loc"][-1]) in misspelt


def tell(root: MapNode, error: Any, top: type[BaseModel] = Stack) -> Diagnostic | None:
    """The finding for one entry of `ValidationError.errors()`; None when the value has one already."""
    spot = Spot(root, error["loc"])
    if spot.refused:
        return None
    kind = error["type"]
    if kind.startswith("IW"):
        return _worded(spot, kind, error["ctx"])
    if kind == "extra_forbidden":
        return _unknown_key(spot, top)
    if kind == "missing":
        return _missing(root, spot, top)
    if kind == "literal_error":
        return _unknown_word(spot, re.findall(r"'([^']*)'", error["ctx"]["expected"]))
    if kind == "union_tag_not_found":
        return _source(spot)
    if kind in _BOUNDS:
        return _bound(spot, kind, error["ctx"])
    return _wrong_kind(spot, kind)


def _worded(spot: Spot, code: str, context: Any) -> Diagnostic:
    span = spot.key if spot.about_key and spot.key is not None else spot.value
    fixes = tuple(_suggested(span, suggestion) for suggestion in context["fixes"])
    return Diagnostic(
        code, context["message"], Label(span, context["label"]), notes=tuple(context["notes"]), fixes=fixes
    )


def _suggested(span: Span, suggestion: Any) -> Fix:
    edits = (Edit(span, suggestion.replacement),) if suggestion.replacement is not None else ()
    return Fix(suggestion.text, Applicability.SAFE if suggestion.safe else Applicability.CHOOSE, edits)


def _unknown_key(spot: Spot, top: type[BaseModel]) -> Diagnostic:
    key = spot.key or spot.value
    parent = spot.path[:-1]
    if parent[:1] == ("models",) and len(parent) == 2 and spot.name == "port":  # noqa: PLR2004 - models.M
        return _derived_port(key)
    elsewhere = owners(parent, spot.name)
    if elsewhere:
        return Diagnostic(
            "IW201",
            f"`{spot.name}` does not belong here",
            Label(key, f"known for {elsewhere}"),
            fixes=(Fix("remove it"),),
        )
    known = keys_at(parent, top)
    candidates = known - spot.beside  # a rename to a key that is there would make it twice
    near = closest(spot.name, candidates)
    label = f"did you mean `{near}`?" if near else "no key of this name here"
    notes = () if near else (f"known here: {' '.join(sorted(known))}",)
    fixes = (renaming(key, spot.name, near, candidates),) if near else (Fix("remove it"),)
    return Diagnostic("IW201", f"unknown key `{spot.name}`", Label(key, label), notes=notes, fixes=fixes)


def _derived_port(key: Span) -> Diagnostic:
    return Diagnostic(
        "IW207",
        "`port` is derived, not typed",
        Label(key, "the compiler gives each model its own; unit and route both use it"),
        notes=("two models once shared 24001 and one was never reachable",),
        fixes=(Fix('delete the line, or  pin: {port: {value: 24001, because: "…"}}'),),
    )


def _missing(root: MapNode, spot: Spot, top: type[BaseModel]) -> Diagnostic:
    if spot.path == ("version",) and top is Stack:
        start = Span(root.span.file, 0, 0, 1, 1, 1, 1)
        edits = _first_line(root, "version: 1")
        fix = Fix("version: 1", Applicability.SAFE if edits else Applicability.CHOOSE, edits)
        return Diagnostic(
            "IW210", "`version` is missing", Label(start, "the first line says which language this is"), fixes=(fix,)
        )
    where = ".".join(str(part) for part in spot.path[:-1])
    notes = (f"{where} needs it",) if where else ("a stack needs it",)
    span = spot.last_key if where else Span(root.span.file, 0, 0, 1, 1, 1, 1)
    return Diagnostic("IW202", f"`{spot.name}` is missing", Label(span, f"has no `{spot.name}`"), notes=notes)


def _first_line(root: MapNode, text: str) -> tuple[Edit, ...]:
    """An edit that puts `text` on a line before the first key; none where the whole file is `{…}`."""
    first = min((entry.key for entry in root.entries.values() if entry.key.file == root.span.file), default=None)
    if first is None or first.start != root.span.start:
        return ()
    here = replace(first, end=first.start, end_line=first.line, end_column=first.column)
    return (Edit(here, f"{text}\n{' ' * (first.column - 1)}"),)


def _unknown_word(spot: Spot, known: list[str]) -> Diagnostic:
    if not isinstance(spot.node, ScalarNode):
        return _wrong_kind(spot, "string_type")
    what = _SINGULAR.get(spot.name, spot.name).replace("_", " ")
    near = closest(spot.node.text, known)
    is_backend = spot.name == "backend"
    words = f"one of: {' '.join(known)}"
    if is_backend:
        words += ". Fields common to all backends are checked all the same; the special ones once this is known"
    notes = (words,) if is_backend or not near else ()
    label = f"did you mean `{near}`?" if near else "no word of this language"
    fix = renaming(spot.value, spot.node.text, near, known, told=near) if near else None
    message = f"unknown {what} `{spot.node.text}`"
    return Diagnostic(
        "IW205" if is_backend else "IW208",
        message,
        Label(spot.value, label),
        notes=notes,
        fixes=(fix,) if fix and not is_backend else (),
    )


def _source(spot: Spot) -> Diagnostic:
    kinds = tuple(SOURCE_KINDS)
    if not isinstance(spot.node, MapNode):
        return _wrong_kind(spot, "dict_type")
    named = [kind for kind in kinds if kind in spot.node.entries]
    message = "a source names one place" if named else "a source names a place"
    label = f"{' and '.join(named)} are two" if named else f"one of: {', '.join(kinds)}"
    return Diagnostic(
        "IW307",
        message,
        Label(spot.value, label),
        fixes=(Fix("keep one" if named else "path: FILE for a file under roots.models"),),
    )


def _bound(spot: Spot, kind: str, context: Any) -> Diagnostic:
    key, words = _BOUNDS[kind]
    bound = context[key]
    text = spot.node.text if isinstance(spot.node, ScalarNode) else spot.name
    limit = int(bound) if float(bound).is_integer() else bound
    return Diagnostic("IW206", f"{spot.name} {text} is outside its bounds", Label(spot.value, f"{words} {limit}"))


def _wrong_kind(spot: Spot, kind: str) -> Diagnostic:
    if kind in {"string_too_short", "too_short"}:
        return Diagnostic("IW213", f"`{spot.name}` is empty", Label(spot.value, "at least one is wanted"))
    if kind == "string_pattern_mismatch":
        text = spot.node.text if isinstance(spot.node, ScalarNode) else ""
        return Diagnostic(
            "IW213", f"`{text}` is not a repository", Label(spot.value, "org/name, such as Qwen/Qwen3-VL-8B-Instruct")
        )
    wanted = {
        "dict_type": "a map",
        "model_type": "a map",
        "model_attributes_type": "a map",
        "tuple_type": "a list",
        "string_type": "a single value",
    }
    found = (
        "a map"
        if isinstance(spot.node, MapNode)
        else "a single value"
        if isinstance(spot.node, ScalarNode)
        else "a list"
    )
    want = wanted.get(kind, "another value")
    example = {"a map": f"{spot.name}: {{…}}", "a list": f"{spot.name}: […]"}.get(want, f"{spot.name}: …")
    return Diagnostic("IW200", f"`{spot.name}` wants {want}, not {found}", Label(spot.value, f"write  {example}"))
