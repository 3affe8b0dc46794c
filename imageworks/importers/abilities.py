"""What a model of the reference registry can do, and which roles it may have.

Owns the 47 persisted booleans -> the words of `capabilities`, the repair of a missing `vision`, and the reading of
`roles` with `role_priority`. What a role requires is taken from the built-in layer, not repeated here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from imageworks.model.layers import built_in
from imageworks.source.tree import ScalarNode, SeqNode, at, child

# The registry's own synonyms (its capability module): canonical words first, then what was persisted beside them.
SYNONYMS: Mapping[str, frozenset[str]] = {
    "chat": frozenset({"text", "chat", "language", "completion"}),
    "vision": frozenset({"vision", "visual", "multimodal", "mm", "image", "vl"}),
    "tools": frozenset(
        {
            "tools", "tool-use", "tool-call", "toolcalls", "tool-calls", "toolchoice", "tool-choice", "function-call",
            "function-calls", "function-calling", "function-tools", "functioncalling", "toolcalling", "auto-tool-choice",
        }
    ),
    "reasoning": frozenset(
        {"thinking", "reasoning", "reason", "think", "chain-of-thought", "cot", "reasoner", "o1", "o3", "r1", "deepseek"}
    ),
    "embedding": frozenset({"embedding", "embed", "text-embedding", "representation"}),
    "audio": frozenset({"audio", "speech", "voice", "asr", "tts"}),
    "detection": frozenset({"detection", "object-detection"}),
}  # fmt: skip
_SEES = re.compile(r"florence|llava|pixtral|siglip|moondream|smolvlm|vl(?![a-z])|(?<![a-z])clip(?![a-z])")
UNNUMBERED = 50
"""Priority of a role that stands in `roles` without a number."""


def words(switched_on: Sequence[str]) -> tuple[list[str], list[str]]:
    """(capabilities, words that mean nothing here) of the names that are true; an embedding model does not chat."""
    known = {synonym: word for word, synonyms in SYNONYMS.items() for synonym in synonyms}
    folded = [name.lower().replace("_", "-").strip() for name in switched_on]
    found = {known[name] for name in folded if name in known}
    if "embedding" in found:
        found.discard("chat")
    order = list(SYNONYMS)
    return sorted(found, key=order.index), sorted({name for name in folded if name not in known})


def sees(*names: str) -> bool:
    """True when a name says that the model takes images.

    >>> sees("qwen25vl_8.3b"), sees("gpt-oss-20b"), sees("Florence-2-large")
    (True, False, True)
    """
    return any(_SEES.search(name.lower()) for name in names)


@cache
def required(role: str) -> frozenset[str] | None:
    """What the built-in role of this name requires; None when there is none."""
    node = at(built_in()[1], "roles", role)
    requires = child(node, "requires")
    if not isinstance(requires, SeqNode):
        return None
    return frozenset(item.text for item in requires.items if isinstance(item, ScalarNode))


def priorities(roles: Any, numbers: Any) -> tuple[dict[str, int], list[str]]:
    """(role -> priority, what had to be decided) of `roles` and `role_priority`."""
    listed = [role for role in roles if isinstance(role, str)] if isinstance(roles, list) else []
    given = numbers if isinstance(numbers, dict) else {}
    found: dict[str, int] = {}
    decided = []
    for role in dict.fromkeys([*listed, *(name for name in given if isinstance(name, str))]):
        number = given.get(role)
        if number is None:
            found[role] = UNNUMBERED
            decided.append(f"role `{role}` has no priority: {UNNUMBERED}")
        elif isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 100:  # noqa: PLR2004 - the type's bounds
            found[role] = UNNUMBERED
            decided.append(f"priority {number!r} of role `{role}` is not a number 0..100: {UNNUMBERED}")
        else:
            found[role] = int(number)
            if role not in listed:
                decided.append(f"role `{role}` has a priority but is not listed: taken over")
    return found, decided
