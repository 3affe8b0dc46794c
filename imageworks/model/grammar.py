"""Which keys may stand where, read from the declared types.

Owns the walk through the annotations of `stack`: from a path in the file to the keys known there. Holds no table
of its own, so that it cannot disagree with the types.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator

from imageworks.model.scalars import Duration, FreeMap, RelativePath, RootPath, Size, Text, Url
from imageworks.model.secret import SecretRef
from imageworks.model.sources import SOURCE_KINDS
from imageworks.model.stack import Model, Stack

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
        return _alternatives(_extra(annotation) if field is None else field.annotation)
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


def takes_text(path: Path, top: type[BaseModel] = Stack) -> bool:
    """True when the value at `path` is a free text, path or address: not a number, a name or a word of the language."""
    return any(_validators(kind) & _TEXTS for kind in _kinds_at(path, top))


def takes_secret(path: Path, top: type[BaseModel] = Stack) -> bool | None:
    """Whether `{secret: NAME}` may stand at `path`; None for a place that is not known, or wants a map of its own."""
    kinds = [kind for kind in _kinds_at(path, top) if kind is not None and not _is_map(kind)]
    return any(_bare(kind) is SecretRef for kind in kinds) if kinds else None


def _is_map(kind: Any) -> bool:
    plain = _bare(kind)
    if get_origin(plain) is dict:
        return not _validators(kind) & _FREE
    return isinstance(plain, type) and issubclass(plain, BaseModel) and plain is not SecretRef


def _bare(kind: Any) -> Any:
    return _bare(get_args(kind)[0]) if get_origin(kind) is Annotated else kind


def measure(path: Path, top: type[BaseModel] = Stack) -> str:
    """`bytes` or `seconds` when the value at `path` is counted in them, else an empty text."""
    readers = frozenset(reader for kind in _kinds_at(path, top) for reader in _validators(kind))
    return "bytes" if readers & _validators(Size) else "seconds" if readers & _validators(Duration) else ""


def _kinds_at(path: Path, top: type[BaseModel]) -> tuple[Any, ...]:
    found: tuple[Any, ...] = (top,)
    for part in path:
        found = tuple(below for kind in found for below in _kinds_below(kind, part))
    return found


def _kinds_below(kind: Any, part: str | int) -> tuple[Any, ...]:
    """The annotated types of what stands under `part` in a value of type `kind`."""
    if _validators(kind) & _FREE:
        return (kind,)  # everything below a map of flags is passed on as it is
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if isinstance(plain, type) and issubclass(plain, BaseModel):
        return _kinds(_hints(plain).get(str(part), _extra(plain)))
    if get_origin(plain) is dict:
        return _kinds(get_args(plain)[1])
    return _kinds(get_args(plain)[0]) if get_origin(plain) is tuple else ()


@cache
def _hints(part: type[BaseModel]) -> Mapping[str, Any]:
    return get_type_hints(part, include_extras=True)


def _extra(part: type[BaseModel]) -> Any:
    """The type of keys that are not declared; None where there can be none."""
    if part.model_config.get("extra") != "allow":
        return None
    return get_args(get_type_hints(part)["__pydantic_extra__"])[1]


def _kinds(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a type, each with its own metadata."""
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(plain) in {Union, UnionType}:
        return tuple(item for choice in get_args(plain) for item in _kinds(choice))
    return (kind,)


def _validators(kind: Any) -> frozenset[Any]:
    """The functions that read the text of a value of type `kind`."""
    return frozenset(item.func for item in getattr(kind, "__metadata__", ()) if isinstance(item, BeforeValidator))


_FREE = _validators(FreeMap)
_TEXTS = _validators(Text) | _validators(RelativePath) | _validators(RootPath) | _validators(Url) | _FREE
