"""Words of a command line -> flags with values.

Owns the reading of `--flag value`, `--flag=value` and bare flags, and the joining of dash and underscore twins.
Knows no engine: which flag means what is in `vllm_flags` and `llama_server`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_NUMBER = re.compile(r"-[0-9]+(?:\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Argument:
    """A flag without its dashes (`_` as `-`), or "" for a positional word; `value` None for a bare flag."""

    flag: str
    value: str | None


def arguments(words: Sequence[str]) -> tuple[Argument, ...]:
    """The flags and positional words of `words`, in order.

    A flag takes the next word unless that is a flag itself; `-1` is a value.

    >>> arguments(["--dtype", "auto", "--enforce_eager", "-ngl=9", "--x", "-1"])[1:3]
    (Argument(flag='enforce-eager', value=None), Argument(flag='ngl', value='9'))
    """
    found: list[Argument] = []
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        if not _is_flag(word):
            found.append(Argument("", word))
            continue
        name, equals, value = word.lstrip("-").partition("=")
        own: str | None = value if equals else None
        if not equals and rest and not _is_flag(rest[-1]):
            own = rest.pop()
        found.append(Argument(name.replace("_", "-"), own))
    return tuple(found)


def _is_flag(word: str) -> bool:
    return word.startswith("-") and word.strip("-") != "" and not _NUMBER.fullmatch(word)
