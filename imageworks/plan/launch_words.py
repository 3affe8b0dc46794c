"""What the launch commands of all engines are made from.

Owns `Seat` (everything a profile decided about a model) and the small makers of `Flag` values. Literal values stay
literal; only `path` values carry tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

from imageworks.diagnostics.model import Span
from imageworks.model.stack import Backends
from imageworks.plan.ir import Device, Flag, Memory, Placement
from imageworks.plan.ranges import Solved
from imageworks.values import dataclass


@dataclass(frozen=True, slots=True)
class Seat:
    """A model's place on a profile: where, how large, on which port, and the engines' own settings.

    The spans are those of the engine's command, of the profile's match.vram, and of each typed flag.
    """

    placement: Placement
    solved: Solved
    memory: Memory
    device: Device | None
    host: str
    port: int
    images_max: int
    images_why: str
    backends: Backends
    command_span: Span | None
    vram_span: Span | None
    flag_spans: Mapping[str, Span | None]


def word(text: str, why: str, span: Span | None = None, *, path: bool = False) -> Flag:
    """A positional word."""
    return Flag("", text, why, span, path=path)


def equals(name: str, value: str, why: str, span: Span | None = None) -> Flag:
    """`--name=value` in one word."""
    return Flag(f"--{name}", value, why, span)


def pair(name: str, value: str, why: str, span: Span | None = None, *, path: bool = False) -> Flag:
    """`--name value` in two words."""
    return Flag(f"--{name}", value, why, span, form="pair", path=path)
