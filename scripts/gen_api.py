"""Write docs/api.md from the document that the proxy serves as GET /openapi.json (imageworks/runtime/openapi.py).

With --check nothing is written, and a stale page is an exit code of 2.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imageworks.runtime.openapi import document

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
HEAD = """\
# HTTP API

<!-- Written by scripts/gen_api.py from imageworks/runtime/openapi.py; do not edit. -->

The proxy listens on `http://127.0.0.1:8100` unless `proxy.bind` says otherwise, and describes itself as OpenAPI 3.1 under
`/openapi.json`. What stands here is all there is: every other path is 404 and never reaches an engine.

Every failure has one shape, and `x-should-retry` says whether a later try may help without spending tokens twice:

```json
{"error": {"message": "…", "type": "…", "code": "…", "param": null, "hint": "…"}}
```

A parameter that neither the official APIs nor the engines' samplers know is refused by its name (`proxy.parameters.allow`
lets more pass); media are sent inline, not by address (but for images of
chats from hosts in `proxy.images.remote`); `n`, schemas, stop words and log probabilities have bounds.
"""
GROUPS = ("Inference", "Models", "Leases", "Operations")


def page() -> str:
    """The page."""
    return "\n".join((HEAD, *_body(document("")))).rstrip() + "\n"


def _body(found: dict[str, Any]) -> Iterator[str]:
    schemas = found["components"]["schemas"]
    for group in GROUPS:
        yield f"## {group}\n"
        for path, methods in found["paths"].items():
            for method, each in methods.items():
                if group in each["tags"]:
                    yield from _operation(method, path, each, schemas)


def _operation(method: str, path: str, each: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    yield f"### {method.upper()} {path}\n"
    yield f"{each['summary']}. {each.get('description', '')}".strip() + "\n"
    rows = [
        *((each_["name"], each_["in"], each_["required"], each_["schema"], each_["description"]) for each_ in each.get("parameters", ())),
        *_fields(each.get("requestBody", {}), schemas),
    ]  # fmt: skip
    if rows:
        yield "| name | in | type | |\n|---|---|---|---|"
        for name, place, required, schema, what in rows:
            yield f"| `{name}` | {place} | {_kind(schema)} | {'; '.join(filter(None, ('required' * required, what)))} |"
        yield ""
    yield f"Answers: {', '.join(_answer(status, said) for status, said in each['responses'].items() if status != 'default')}.\n"


def _fields(body: dict[str, Any], schemas: dict[str, Any]) -> Iterator[tuple[str, str, bool, dict[str, Any], str]]:
    for kind, content in body.get("content", {}).items():
        schema = content["schema"]
        schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        place = "form" if kind.startswith("multipart") else "body"
        for name, field in schema["properties"].items():
            yield name, place, name in schema.get("required", ()), field, field.get("description", "")


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    kind = schema.get("type", "any")
    words = kind if isinstance(kind, str) else " or ".join(kind)
    low, high = schema.get("minimum"), schema.get("maximum")
    return f"{words} {low}…{high}" if low is not None and high is not None else words


def _answer(status: str, said: dict[str, Any]) -> str:
    kinds = [kind for kind in said.get("content", {}) if kind != "application/json"]
    names = [_name(content.get("schema", {})) for content in said.get("content", {}).values()]
    told = [*(name for name in names if name not in ("", "Error", "Failure")), *kinds]
    return f"{status} ({', '.join(told)})" if told else status


def _name(schema: dict[str, Any]) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def main(arguments: list[str]) -> int:
    """Write the page, or with --check say whether it is stale; returns the exit code."""
    wanted = page()
    stale = not PAGE.exists() or PAGE.read_text("utf-8") != wanted
    if arguments == ["--check"]:
        if stale:
            print("docs/api.md is stale; run: python scripts/gen_api.py", file=sys.stderr)
        return 2 if stale else 0
    PAGE.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
