"""What is generated as JSON keeps to its declared shape, and the shape only grows.

The schemas are those of the contract's own types, made strict. `published.json` holds the keys that readers rely on: a key
that is renamed, dropped or given another type makes a test fail; a new one does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from imageworks import contract
from imageworks.commands.pipeline import Compiled, artifacts, compile_files, compile_stack
from imageworks.source.files import MemoryFiles

ROOT = Path(__file__).parents[2]
PUBLISHED = Path(__file__).with_name("published.json")
TYPES: Mapping[str, type] = {"exec": contract.ExecSpec, "routes": contract.RouteTable}
FULL = """version: 1
secrets: {A: {env: A_KEY}, B: {file: secrets/b}}
models:
  far: {backend: openai, url: "https://llm.example.org", key: {secret: A}, roles: {chat: 50}, sampling: {temperature: 0}}
  own: {backend: openai, command: [serve], env: {T: {secret: B}, M: x}, vram: {total: 1GiB, because: seen}, placement: cpu}
  tag: {backend: ollama, source: {ollama: "q:7b"}, vram: {total: 2GiB, because: seen}, aliases: [q]}
"""


@cache
def schema(kind: str) -> dict[str, Any]:
    """JSON Schema of a contract type; keys that it does not declare are refused."""
    made = msgspec.json.schema(TYPES[kind])
    for definition in made["$defs"].values():
        if "properties" in definition:
            definition["additionalProperties"] = False
    return made


@pytest.fixture(scope="module")
def compiled() -> tuple[Compiled, ...]:
    full = compile_files(Path("stack.yaml"), MemoryFiles({"stack.yaml": FULL}), "full")
    return compile_stack(ROOT / "stack.yaml"), full


def documents(compiled: tuple[Compiled, ...], kind: str) -> Iterator[tuple[str, Any]]:
    for number, stack in enumerate(compiled):
        for profile, files in artifacts(stack.plans, stack.profiles).items():
            for file in files:
                if file.path == f"{kind}.json" or file.path.startswith(f"{kind}/"):
                    yield f"{number}/{profile}/{file.path}", json.loads(file.text)


@pytest.mark.parametrize("kind", TYPES)
def test_every_generated_document_is_valid(compiled: tuple[Compiled, ...], kind: str) -> None:
    assert not [item for stack in compiled for item in stack.diagnostics if item.is_error]
    validator = jsonschema.Draft202012Validator(schema(kind))
    found = dict(documents(compiled, kind))
    assert len(found) >= 18
    assert {name: error.message for name, document in found.items() for error in validator.iter_errors(document)} == {}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("spoil", ["unknown", "missing", "type"])
def test_a_spoilt_document_is_refused(compiled: tuple[Compiled, ...], kind: str, spoil: str) -> None:
    document = next(document for _, document in documents(compiled, kind))
    key = "argv" if kind == "exec" else "routes"
    match spoil:
        case "unknown":
            document["surprise"] = 1
        case "missing":
            del document[key]
        case _:
            document[key] = 5
    assert not jsonschema.Draft202012Validator(schema(kind)).is_valid(document)


def test_no_published_key_is_renamed_or_changed() -> None:
    now = {name: definition["properties"] for kind in TYPES for name, definition in schema(kind)["$defs"].items()}
    published = json.loads(PUBLISHED.read_text("utf-8"))
    changed = {
        f"{name}.{key}": (shape, now.get(name, {}).get(key))
        for name, keys in published.items()
        for key, shape in keys.items()
        if _shape(now.get(name, {}).get(key)) != shape
    }
    assert changed == {}


def _shape(value: Any) -> Any:
    """A key's schema without its default, which may change."""
    return {key: item for key, item in value.items() if key != "default"} if isinstance(value, dict) else value
