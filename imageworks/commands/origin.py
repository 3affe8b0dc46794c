"""Where a value of the stack comes from: what is written, where, and what it stands over.

Owns the answer to `imageworks why` as far as the files tell it; what the plan made of it is `derived`. Pure: reads
the loaded stack and the texts of its files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from pydantic import BaseModel

from imageworks.diagnostics.model import Span
from imageworks.model.grammar import measure
from imageworks.model.loaded import Loaded, Path, Place
from imageworks.model.paths import Children, dotted
from imageworks.source.comments import beside
from imageworks.values import dataclass

_LONGEST = 100
_INHERITED = ("context", "concurrency", "grace", "start_timeout")
_PER_PROFILE = ("grace", "start_timeout")


@dataclass(frozen=True, slots=True)
class Written:
    """A value as it stands in a file; `path` is set where it is another one than was asked for."""

    text: str
    span: Span | None
    comment: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """A value, what it shadows (nearest first), and the variables that are filled into it."""

    value: Written
    over: tuple[Written, ...] = ()
    variables: tuple[Written, ...] = ()


def origin(loaded: Loaded, texts: Mapping[str, str], path: Path, profile: str, below: Children) -> Origin:
    """Where the value at `path` comes from; `profile` decides between what a model inherits."""
    if path in loaded.places:
        return _written(loaded, texts, path, below)
    for other in _inherited(path, profile):
        if other in loaded.places:
            found = _written(loaded, texts, other, below)
            return replace(found, value=replace(found.value, path=dotted(other)))
    value = _at(loaded.stack, path)
    return Origin(Written("not written" if value is None else f"{_plain(value, path)}, by default", None))


def _inherited(path: Path, profile: str) -> Iterator[Path]:
    """Where a key that a model leaves out comes from, nearest first."""
    if path[:1] == ("models",) and path[2:] and path[2] in _INHERITED:
        if path[2] in _PER_PROFILE:
            yield ("profiles", profile, path[2])
        yield ("defaults", path[2])


def _written(loaded: Loaded, texts: Mapping[str, str], path: Path, below: Children) -> Origin:
    place = loaded.places[path]
    text = _text(loaded, texts, path, below)
    chain = (_shadowed(texts, other) for other in loaded.origins.get(path, ()))
    used = re.findall(r"\$\{([A-Z][A-Z0-9_]*)\}", _slice(texts, place.value))
    variables = (name for name in dict.fromkeys(used) if ("variables", name) in loaded.places)
    return Origin(
        Written(text, place.value, _comment(texts, place)),
        tuple(chain),
        tuple(_variable(loaded, texts, name) for name in variables),
    )


def _variable(loaded: Loaded, texts: Mapping[str, str], name: str) -> Written:
    place = loaded.places["variables", name]
    return Written(_slice(texts, place.value), place.value, _comment(texts, place), f"${{{name}}}")


def _shadowed(texts: Mapping[str, str], place: Place) -> Written:
    return Written(_short(_slice(texts, place.value)), place.value, _comment(texts, place))


def _text(loaded: Loaded, texts: Mapping[str, str], path: Path, below: Children) -> str:
    """The value on one line: a text as written, a list item by item, a map by its keys."""
    parts = below.get(path, ())
    if parts and all(isinstance(part, int) for part in parts):
        return _short(f"[{', '.join(_text(loaded, texts, (*path, part), below) for part in parts)}]")
    if parts:
        return _short(f"{{{', '.join(map(str, parts))}}}")
    return _short(_slice(texts, loaded.places[path].value))


def _slice(texts: Mapping[str, str], span: Span) -> str:
    return " ".join(texts.get(span.file, "")[span.start : span.end].split())


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _comment(texts: Mapping[str, str], place: Place) -> str:
    """The comment on the value's line, or beside the key of a value that begins below it."""
    on_key_line = place.key is not None and place.key.line < place.value.end_line
    span = place.key if on_key_line and place.key is not None else place.value
    return beside(texts.get(span.file, ""), span.end)


def _at(stack: BaseModel, path: Path) -> object:
    """The typed value at `path`, None where nothing was said."""
    value: object = stack
    for part in path:
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, BaseModel):
            value = getattr(value, str(part), None)
        else:
            return None
    return value


def _plain(value: object, path: Path) -> str:
    """A value of the typed stack as a person writes it."""
    unit = measure(path)
    if unit == "bytes" and isinstance(value, int):
        return f"{value / 2**30:g}GiB" if value >= 2**30 else f"{value / 2**20:g}MiB"
    if unit == "seconds" and isinstance(value, float):
        return f"{value:g}s"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple) and [type(part) for part in value] == [str, int]:
        return f"{value[0]}:{value[1]}"  # an address
    return "nothing" if isinstance(value, BaseModel | Mapping | tuple) else str(value)
