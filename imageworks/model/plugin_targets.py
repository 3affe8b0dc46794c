"""Targets that are not ours: a name under `targets:` must be that of an installed package's target.

Owns IW522. A name that nobody provides is refused as a whole, so that nothing else is said about what stands below it.
Knows no package: the names are given by the caller, and asked for only when a stack names a target that is not ours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from imageworks.diagnostics.model import Diagnostic, Fix, Label, Span
from imageworks.model.closest import closest, renaming
from imageworks.model.names import entries
from imageworks.model.stack import Targets
from imageworks.source.tree import BrokenNode, MapNode

OURS = frozenset(Targets.model_fields)


def installed_only(root: MapNode, installed: Callable[[], Collection[str]]) -> tuple[MapNode, tuple[Diagnostic, ...]]:
    """`root` without the targets that nobody provides, and a finding for each."""
    others = {name: entry.key for name, entry in entries(root, "targets") if name not in OURS}
    if not others:
        return root, ()
    known = frozenset(installed())
    unknown = {name: key for name, key in others.items() if name not in known}
    section = root.entries["targets"]
    kept = {
        name: entry.with_value(BrokenNode(entry.value.span)) if name in unknown else entry
        for name, entry in entries(root, "targets")
    }
    found = tuple(_unknown(name, key, known, frozenset(kept)) for name, key in unknown.items())
    return MapNode({**root.entries, "targets": section.with_value(MapNode(kept, section.value.span))}, root.span), found


def _unknown(name: str, key: Span, installed: frozenset[str], beside: frozenset[str]) -> Diagnostic:
    known = (OURS | installed) - beside
    near = closest(name, known)
    label = f"did you mean `{near}`?" if near else "no installed package provides it"
    told = f"{', '.join(sorted(installed))} of installed packages" if installed else "no installed package adds another"
    fixes = (
        (renaming(key, name, near, known),) if near else (Fix("install the package that provides it, or remove it"),)
    )
    notes = (f"ours: {', '.join(sorted(OURS))}; {told}",)
    return Diagnostic("IW522", f"unknown target `{name}`", Label(key, label), notes=notes, fixes=fixes)
