from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from imageworks.model import scalars, schema
from imageworks.model.written import Written

ROOT = Path(__file__).parents[2]
STACK = (ROOT / "stack.yaml").read_text("utf-8")


def errors(text: str) -> list[str]:
    """What an editor would underline in `text`, as paths."""
    validator = jsonschema.Draft202012Validator(schema.schema())
    tree = YAML(typ="safe", pure=True).load(text)
    return sorted("/".join(map(str, error.absolute_path)) for error in validator.iter_errors(tree))


def test_the_shipped_schema_is_current() -> None:
    shipped = files("imageworks.model").joinpath("stack.schema.json").read_text("utf-8")
    assert shipped == schema.text(), "run: python scripts/gen_reference.py"


def test_the_schema_keeps_to_the_standard() -> None:
    jsonschema.Draft202012Validator.check_schema(schema.schema())


@pytest.mark.parametrize("name", ["stack.yaml", "imageworks/model/builtin.yaml"])
def test_a_shipped_stack_is_accepted(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert errors(text if "version:" in text else f"version: 1\n{text}") == []


def test_the_shipped_stack_names_the_schema() -> None:
    (place,) = re.findall(r"^# yaml-language-server: \$schema=(\S+)$", STACK, re.MULTILINE)
    assert json.loads((ROOT / place).read_text("utf-8")) == schema.schema()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("name: x", ""),
        ("bakend: x", ""),
        ("models: {m: {backend: vlm}}", "models/m/backend"),
        ("models: {m: {backend: vllm, vram: {weights: 10.6GB}}}", "models/m/vram/weights"),
        ("models: {m: {backend: vllm, grace: 300}}", "models/m/grace"),
        ("models: {m: {backend: vllm, roles: {chat: 850}}}", "models/m/roles/chat"),
        ("models: {m: {backend: vllm, context: ~}}", "models/m/context"),
        ("models: {m: {backend: vllm, source: {path: /srv/x}}}", "models/m/source"),
        ("profiles: {p: {match: {gpus: 1, vram: 15GiB}}}", "profiles/p/match/vram"),
    ],
)
def test_an_editor_sees_mistakes_where_they_stand(text: str, place: str) -> None:
    version = "" if text == "name: x" else "version: 1\n"
    assert place in errors(version + text)


def scalar_types() -> list[str]:
    return sorted(re.findall(r"^(\w+) = Annotated\[", Path(scalars.__file__).read_text("utf-8"), re.MULTILINE))


TEXTS = """
    0 1 42 1_000 -1 0.5 1.10 012 1e3 true false no 9.88GiB 3500MiB 10GB 0GiB 5m 1h30m 250ms 300 0s >=14.9GiB <22GiB
    >=8.0 =8.9 >=14.9GiB<22.1GiB <3GiB 1024px 127.0.0.1:8100 [::1]:80 http://a:1/v1 https://x a/b Qwen/Qwen3 /abs ~x ../x
    qwen2.5-vl a--b A_B 3g.40gb ${MODELS} x*y ä 日本 a.b.c 100 101 65535 65536 8k nan
""".split()  # noqa: SIM905 - as they stand in a file


@pytest.mark.parametrize("name", scalar_types())
@pytest.mark.parametrize("text", [*TEXTS, "0123456789abcdef" * 4, ">=14.9GiB <22.1GiB", " "])
def test_an_editor_accepts_whatever_we_accept(name: str, text: str) -> None:
    """In the way that YAML reads it plain, and in quotes."""
    adapter: TypeAdapter[Any] = TypeAdapter(getattr(scalars, name))
    try:
        adapter.validate_python(Written(text, plain=True))
    except ValidationError:
        return
    validator = jsonschema.Draft202012Validator(adapter.json_schema())
    for written in (text, json.dumps(text)):
        try:
            value = YAML(typ="safe", pure=True).load(written)
        except YAMLError:
            continue  # such a text needs quotes
        validator.validate(text if value is None else value)
