"""What the front end hands to the plan: the typed stack and where each value stands.

Owns `Place` (spans of one path) and `Loaded`. Holds no judgement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from imageworks.diagnostics.model import Span
from imageworks.model.lock import Lock
from imageworks.model.prompts import PromptProfile
from imageworks.model.stack import Stack
from imageworks.values import dataclass

Path = tuple[str | int, ...]

BUILT_IN = "<built-in>"
"""File name of the built-in layer in spans and texts."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one value stands: its key (absent for list items and the whole file) and the value itself."""

    key: Span | None
    value: Span


@dataclass(frozen=True, slots=True)
class Loaded:
    """A stack without errors, with the places of its values.

    `places` maps a path such as `("models", "qwen", "context")` to its spans; values that came from the
    built-in layer carry spans of the file `<built-in>`. `named_roles` are the roles that the user's own file
    names under `roles:` (an empty built-in role is only a note). `inputs` maps each input file's name,
    relative to the stack, to the sha256 of its bytes. `origins` maps a path to what its value stands over in
    lower layers, nearest first. `overrides` maps a profile with an `override` to the stack as that profile sees it;
    ask `on(profile)`. `local` are the dotted paths that the machine's own layer changes.
    """

    stack: Stack
    places: Mapping[Path, Place]
    lock: Lock
    named_roles: frozenset[str]
    prompt_profiles: Mapping[tuple[str, str], PromptProfile]
    inputs: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[Path, tuple[Place, ...]] = field(default_factory=dict)
    overrides: Mapping[str, Loaded] = field(default_factory=dict)
    local: tuple[str, ...] = ()

    def on(self, profile: str) -> Loaded:
        """The stack as `profile` sees it: with its override laid over, or this one."""
        return self.overrides.get(profile, self)

    def views(self) -> tuple[Loaded, ...]:
        """This stack, and each profile's own view of it."""
        return (self, *self.overrides.values())

    def key(self, *path: str | int) -> Span | None:
        """Span of the key at `path`, or of the nearest ancestor that has one."""
        return self._nearest(path, key=True)

    def value(self, *path: str | int) -> Span | None:
        """Span of the value at `path`, or of the nearest ancestor's key."""
        place = self.places.get(path)
        return place.value if place is not None else self._nearest(path[:-1], key=True)

    def _nearest(self, path: Path, *, key: bool) -> Span | None:
        while path:
            place = self.places.get(path)
            if place is not None:
                return place.key if key and place.key is not None else place.value
            path = path[:-1]
        return None
