"""The JSON Schema of stack.yaml, for editors.

Owns the way from the declared types to the schema of a file as a person writes it: what the built-in layer gives
need not be written. An editor may accept what `imageworks check` refuses, never the other way round.
"""

from __future__ import annotations

import json
from typing import Any

from imageworks.model.stack import Binding, Defaults, Group, Match, Model, Profile, Role, Root, Roots, Stack

HEAD = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "stack.yaml of ImageWorks",
}
FILLED_IN = (Binding, Defaults, Group, Match, Model, Profile, Role, Root, Roots)
"""Parts whose required keys may come from a lower layer: the built-in one, or an included file."""
SUFFIXED: dict[str, Any] = {"[-+=]$": {}}
"""Keys that change what a lower layer says: `key+`, `key-` and `key=`."""


def schema() -> dict[str, Any]:
    """The schema, with keys in the order of their declaration."""
    made = Stack.model_json_schema()
    for part in FILLED_IN:
        made["$defs"].get(part.__name__, {}).pop("required", None)
    plain = _plain(made)
    return {**HEAD, **plain, "required": ["version"]}


def text() -> str:
    """The schema as JSON, with a line end."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def _plain(node: Any, *, names: bool = False) -> Any:
    """Without titles, which repeat the keys, defaults, which stand in base units here, and null, which is refused.

    `names` is true for a map whose keys are a person's (properties, definitions), where nothing is left out.
    """
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {
        key: _plain(value, names=key in {"properties", "$defs"} and not names)
        for key, value in node.items()
        if names or key not in {"title", "default"}
    }
    if not names and "properties" in plain and "additionalProperties" in plain:
        plain["patternProperties"] = SUFFIXED
    return plain if names else _without_null(plain)


def _without_null(node: dict[str, Any]) -> dict[str, Any]:
    choices = [choice for choice in node.get("anyOf", ()) if choice != {"type": "null"}]
    return {**choices[0], **{key: node[key] for key in node if key != "anyOf"}} if len(choices) == 1 else node
