"""Prompt profiles from prompts/<layer>/<app>/<profile>.yaml.

Owns finding the files, laying later layers over earlier ones key by key, and telling what is wrong in them. Renders
nothing: that is the runtime's work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from imageworks.diagnostics.model import Diagnostic
from imageworks.model.decode import values, without_empty
from imageworks.model.findings import tell_all
from imageworks.model.prompts import PromptFile, PromptProfile
from imageworks.source.overlay import overlay
from imageworks.source.tree import MapNode

Key = tuple[str, str]


def prompt_place(name: str, path: str, layers: Iterable[str]) -> tuple[str, Key] | None:
    """(layer, (app, profile)) of the file `name` below `path`, or None when it is no prompt file of these layers."""
    parts = name.removeprefix(f"{path}/").split("/")
    if len(parts) != 3 or parts[0] not in layers or not parts[2].endswith(".yaml"):  # noqa: PLR2004 - layer/app/profile
        return None
    return parts[0], (parts[1], parts[2].removesuffix(".yaml"))


def assemble(
    trees: Mapping[tuple[str, Key], MapNode], layers: tuple[str, ...]
) -> tuple[Mapping[Key, PromptProfile], tuple[Diagnostic, ...]]:
    """The profiles made of `trees`, which are keyed by layer and profile; `layers` lowest first."""
    profiles: dict[Key, PromptProfile] = {}
    found: list[Diagnostic] = []
    for key in sorted({key for _, key in trees}):
        own = tuple(layer for layer in layers if (layer, key) in trees)
        profile, about = _profile([trees[layer, key] for layer in own], own)
        found += about
        if profile is not None:
            profiles[key] = profile
    return profiles, tuple(found)


def _profile(trees: list[MapNode], layers: tuple[str, ...]) -> tuple[PromptProfile | None, tuple[Diagnostic, ...]]:
    merged = trees[0]
    for tree in trees[1:]:
        above = overlay(merged, tree)
        merged = above if isinstance(above, MapNode) else merged
    merged, empty = without_empty(merged)
    try:
        written = PromptFile.model_validate(values(merged))
    except ValidationError as error:
        return None, (*empty, *tell_all(merged, error.errors(include_url=False), PromptFile))
    return PromptProfile.model_construct(**dict(written), layers=layers), empty
