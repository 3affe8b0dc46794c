"""Which keys may stand where, read from the declared types.

Owns the walk through the annotations of `stack`: from a path in the file to the keys known there. Holds no table
of its own, so that it cannot disagree with the types.
"""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from imageworks.model.stack import SOURCE_KINDS, Model, Stack

Path = tuple[str | int, ...]


def keys_at(path: Path, top: type[BaseModel] = Stack) -> frozenset[str]:
    """Keys that may stand in the map at `path` (fields only; names a person chooses are not listed)."""
    return frozenset(key for part in _parts_at(path, top) for key in part.model_fields)


def owners(path: Path, key: str) -> str:
    """Where `key` would belong when it does not stand in the right map; empty when nowhere near."""
    if path[:1] == ("models",) and path[-1:] == ("source",):
        kinds = [kind for kind, part in SOURCE_KINDS.items() if key in part.model_fields]
        return f"source {' and '.join(kinds)}" if kinds else ""
    in_source = any(key in part.model_fields for part in SOURCE_KINDS.values())
    if path[:1] == ("models",) and len(path) == 2 and in_source and key not in Model.model_fields:  # noqa: PLR2004 - models.M
        return "source: {…}"
    return ""


def _parts_at(path: Path, top: type[BaseModel]) -> tuple[type[BaseModel], ...]:
    found: tuple[Any, ...] = (top,)
    for part in path:
        found = tuple(below for annotation in found for below in _below(annotation, part))
    return tuple(item for item in found if isinstance(item, type) and issubclass(item, BaseModel))


def _below(annotation: Any, part: str | int) -> tuple[Any, ...]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return _alternatives(field.annotation) if field is not None else ()
    if get_origin(annotation) is dict:
        return _alternatives(get_args(annotation)[1])
    return _alternatives(get_args(annotation)[0]) if get_origin(annotation) is tuple else ()


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in {Union, UnionType}:
        return tuple(item for choice in get_args(annotation) for item in _alternatives(choice))
    return (annotation,)
