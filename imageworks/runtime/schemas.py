"""JSON schemas and patterns of a request, looked at before an engine compiles them.

Owns the check that every `type` is one of JSON Schema's and every `pattern` a regular expression: engines before vLLM 0.9
ended on others (CVE-2025-48942, -48943, -48944). It follows the keywords that hold schemas and looks at nothing else, so
a property may be called `type`. Pure; the size of what is looked at is bounded by `parameters`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from imageworks.runtime.errors import ApiError

TYPES = frozenset(("string", "number", "integer", "boolean", "object", "array", "null"))
DEPTH = 64
_OF_NAMES = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_ONE = (
    "items",
    "additionalProperties",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "unevaluatedProperties",
)
_MANY = ("prefixItems", "anyOf", "oneOf", "allOf", "items")
_HOLDERS = ("function", "json_schema", "format")
_SCHEMAS = ("parameters", "input_schema", "schema", "json")
_ELSEWHERE = re.compile(r"\\[pP]\{[^}]*\}|\(\?<(?![=!])|\\k<(\w+)>")
"""What other dialects of regular expressions write and Python's does not; each stands for something harmless."""


def check_schema(name: str, raw: msgspec.Raw) -> None:
    """Raise ApiError 400 for a schema within the field `name` that no engine can compile."""
    try:
        value = msgspec.json.decode(raw)
        if isinstance(value, str) and name == "guided_json":
            value = msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(name, f"cannot be read: {error}") from None
    bare = name in ("guided_json", "format")
    for schema in [value] if bare else _schemas(value):
        _check(name, schema, 0)


def check_pattern(name: str, pattern: object) -> None:
    """Raise ApiError 400 unless it is a regular expression."""
    if not isinstance(pattern, str):
        raise _refused(name, "has a pattern that is no text")
    try:
        re.compile(_ELSEWHERE.sub(_in_python, pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise _refused(name, f"has a pattern that is no regular expression: {error}") from None


def _in_python(found: re.Match[str]) -> str:
    return "(?P<" if found[0] == "(?<" else "."


def _schemas(value: Any) -> Iterator[Any]:
    """The schemas of tools and of formats, wherever the dialect puts them."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            yield from (item[name] for name in _SCHEMAS if name in item)
            for name in _HOLDERS:
                yield from _schemas(item.get(name))
            if "regex" in item:
                check_pattern("structured_outputs", item["regex"])


def _check(name: str, schema: Any, depth: int) -> None:
    if depth > DEPTH:
        raise _refused(name, f"is nested deeper than {DEPTH}")
    if not isinstance(schema, dict):
        return
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if not isinstance(kind, str) or kind not in TYPES:
            raise _refused(name, f"has the type {str(kind)[:40]!r}, which JSON Schema does not know")
    if "pattern" in schema:
        check_pattern(name, schema["pattern"])
    for inner in _inner(schema):
        _check(name, inner, depth + 1)


def _inner(schema: dict[str, Any]) -> Iterator[Any]:
    for keyword in _OF_NAMES:
        if isinstance(schema.get(keyword), dict):
            yield from schema[keyword].values()
    for keyword in _ONE:
        yield schema.get(keyword)
    for keyword in _MANY:
        if isinstance(schema.get(keyword), list):
            yield from schema[keyword]


def _refused(name: str, why: str) -> ApiError:
    return ApiError(400, "invalid_schema", f"`{name}` {why}", param=name)
