"""How many tokens of context an image takes, per model family.

Owns the table of rules; each is that of the family's published image processor, for a square image whose long
edge is the role's `max_edge` (the worst shape, as every other one has fewer pixels). Upper bounds where a family
has several resolutions. An unknown family is `None`: nothing is claimed about it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

Rule = Callable[[int | None], int | None]


def image_tokens(family: str | None, max_edge: int | None) -> int | None:
    """Tokens of one image with a long edge of `max_edge` pixels; None when the family or the bound is unknown.

    >>> image_tokens("qwen3_vl", 1024)
    1024
    >>> image_tokens("pixtral", 1024)
    4160
    """
    if family is None:
        return None
    name = family.lower().replace("-", "_").replace(".", "_")
    rule = RULES.get(ALIASES.get(name, name))
    return None if rule is None else rule(max_edge)


def _per_patch(side: int) -> Rule:
    """One token for each `side` x `side` pixels; bounded by the image only."""

    def rule(edge: int | None) -> int | None:
        return None if edge is None else ceil(edge / side) ** 2

    return rule


def _pixtral(edge: int | None) -> int:
    """16 x 16 patches plus one break token a row; the processor shrinks to 1024 pixels."""
    rows = ceil(min(edge or 1024, 1024) / 16)
    return rows * (rows + 1)


def _fixed(tokens: int) -> Rule:
    return lambda _: tokens


def _tiled(tokens: int) -> Rule:
    """Idefics3: the image is scaled to 4 x 4 tiles and one overview, each with three marker tokens."""
    return _fixed(17 * (tokens + 3))


RULES: dict[str, Rule] = {
    "qwen2_vl": _per_patch(28),  # patch 14, merge 2
    "qwen2_5_vl": _per_patch(28),
    "qwen3_vl": _per_patch(32),  # patch 16, merge 2
    "pixtral": _pixtral,
    "idefics3": _tiled(169),  # 364 px tiles
    "smolvlm": _tiled(81),  # 81 in the 2.2B, 64 in the small ones
    "florence2": _fixed(577),  # 768 px, 24 x 24 features and their mean
    "gemma3": _fixed(256),
    "llava": _fixed(576),  # 336 px, patch 14
}
ALIASES = {  # names of the same networks in GGUF headers and in other configs
    "qwen2vl": "qwen2_vl",
    "qwen25vl": "qwen2_5_vl",
    "qwen3vl": "qwen3_vl",
    "qwen3_vl_moe": "qwen3_vl",
    "qwen3vlmoe": "qwen3_vl",
    "florence_2": "florence2",
}
