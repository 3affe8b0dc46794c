"""Prompt bindings: an app's stage must lead to a prompt profile that exists.

Owns IW701 for profiles and the form of a stage's name (IW702). Roles of bindings are references like others: `names`.
"""

from __future__ import annotations

from collections.abc import Iterator

from imageworks.diagnostics.model import Diagnostic, Fix, Label
from imageworks.model.closest import closest, renaming
from imageworks.model.names import entries, texts
from imageworks.model.scalars import ID
from imageworks.source.tree import MapNode, ScalarNode, at


def unbound(root: MapNode, prompts: frozenset[tuple[str, str]]) -> Iterator[Diagnostic]:
    """A finding for every binding that names no stage or no prompt profile."""
    for stage, entry in entries(root, "prompts", "bind"):
        app, dot, rest = stage.partition(".")
        if not dot or not all(ID.fullmatch(part) for part in (app, rest)):
            label = Label(entry.key, "app.stage, such as personal_tagger.caption")
            yield Diagnostic("IW702", f"`{stage}` names no stage of an app", label)
            continue
        node = at(root, "prompts", "bind", stage, "profile")
        if isinstance(node, ScalarNode) and (app, node.text) not in prompts:
            yield _unknown(root, app, node, [profile for owner, profile in prompts if owner == app])


def _unknown(root: MapNode, app: str, node: ScalarNode, known: list[str]) -> Diagnostic:
    path = at(root, "prompts", "path")
    folder = path.text if isinstance(path, ScalarNode) else "prompts"
    layers = ",".join(item.text for item in texts(root, "prompts", "layers")) or "base,app,user"
    written = [name for name in known if ID.fullmatch(name)]
    near = closest(node.text, written)
    label = f"did you mean `{near}`?" if near else "no such profile"
    fix = (
        renaming(node.span, node.text, near, written)
        if near
        else Fix(f"write {folder}/{layers.split(',')[0]}/{app}/{node.text}.yaml")
    )
    looked = f"looked in {folder}/{{{layers}}}/{app}/"
    return Diagnostic("IW701", "unknown prompt profile", Label(node.span, label), notes=(looked,), fixes=(fix,))
