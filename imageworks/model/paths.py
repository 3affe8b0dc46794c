"""Dotted paths as people write them -> paths of the tree: `models.qwen2.5-vl.aliases.0`.

Owns the reading of ids with dots in them, and what is near a path that leads nowhere. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from imageworks.model.closest import closest
from imageworks.model.grammar import keys_at
from imageworks.model.loaded import Path
from imageworks.values import dataclass

Children = Mapping[Path, Sequence[str | int]]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A path that leads nowhere: how far it leads, the first part that is not there, and what was perhaps meant."""

    reached: Path
    part: str
    near: str | None
    known: tuple[str, ...]


def children(paths: Collection[Path]) -> Children:
    """The keys and indexes below each path."""
    below: dict[Path, list[str | int]] = {}
    for path in paths:
        if path:
            below.setdefault(path[:-1], []).append(path[-1])
    return below


def dotted(path: Path) -> str:
    """`path` as a person writes it."""
    return ".".join(map(str, path))


def find(text: str, below: Children, more: Collection[str] = ()) -> Path | Unknown:
    """The path that `text` means; one that may stand in the file although it does not is found too.

    `more` are further names that a model answers to although they are never written.
    """
    rest = re.sub(r"\[([0-9]+)\]", r".\1", text.strip()).strip(".")
    deepest: list[tuple[Path, str]] = []
    for path in _ways((), rest, below, more, deepest):
        return path
    reached, left = max(deepest, key=lambda item: len(item[0]))
    known = tuple(map(str, _keys(reached, below)))
    known = tuple(dict.fromkeys((*known, *(more if _is_model(reached) else ()))))
    guesses = ((part, closest(part, known)) for part in _prefixes(left))
    part, near = next((guess for guess in guesses if guess[1] is not None), (left, None))
    return Unknown(reached, part, near, known)


def _prefixes(text: str) -> Iterator[str]:
    """`text`, then without its last part, and so on: an id may have dots of its own."""
    while text:
        yield text
        text = text.rpartition(".")[0]


def _ways(
    path: Path, rest: str, below: Children, more: Collection[str], deepest: list[tuple[Path, str]]
) -> Iterator[Path]:
    """All readings of `rest` below `path`, longest names first."""
    if not rest:
        yield path
        return
    deepest.append((path, rest))
    keys = (*_keys(path, below), *(more if _is_model(path) else ()))
    for key in sorted(dict.fromkeys(keys), key=lambda key: -len(str(key))):
        if str(key) and (rest == str(key) or rest.startswith(f"{key}.")):
            yield from _ways((*path, key), rest[len(str(key)) + 1 :], below, more, deepest)


def _keys(path: Path, below: Children) -> tuple[str | int, ...]:
    """What stands below `path`, and what may; nothing below a single value."""
    is_value = path and path not in below and path[-1] in below.get(path[:-1], ())
    return () if is_value else (*below.get(path, ()), *sorted(keys_at(path)))


def _is_model(path: Path) -> bool:
    return path[:1] == ("models",) and len(path) == 2  # noqa: PLR2004 - models.M
