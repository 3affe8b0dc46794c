"""`models.lock`: the facts of weights, so that the compiler never looks at a model file.

Owns the shape of the file (JSON, `schema: 1`), reading it and the text written back. Facts are keyed by
model id. Reading model files is the store's work (`imageworks.store`), not ours.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError

from imageworks.model.part import Part

SCHEMA = 1


class Architecture(Part):
    """What the memory formula and the image-token tables need to know about a network.

    `kv_bytes_per_token` = 2 x layers x kv_heads x head_dim x 2 bytes is derived, never stored.
    """

    family: str = Field(description="e.g. qwen3_vl, llama, gpt_oss; selects the image-token rule")
    layers: int = Field(ge=0)
    kv_heads: int = Field(ge=0)
    head_dim: int = Field(ge=0)
    context_limit: int | None = Field(None, ge=1, description="longest context the weights were made for")
    classes: tuple[str, ...] | None = Field(None, description="class names in config.json: what vLLM looks up")


class LockedFile(Part):
    """One file of a model: name relative to its source, size and hash where known."""

    name: str
    bytes: int = Field(ge=0)
    sha256: str | None = None


class LockedModel(Part):
    """The facts of one model's weights. `origin` says where they were read."""

    origin: Literal["file", "published"]
    weights_bytes: int | None = Field(None, ge=0, description="bytes that end up in memory, projector included")
    architecture: Architecture | None = None
    quantization: str | None = None
    capabilities: tuple[str, ...] = ()
    files: tuple[LockedFile, ...] = ()


class Lock(Part):
    """The whole file."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal[1] = Field(1, alias="schema")
    models: dict[str, LockedModel] = Field(default_factory=dict)


def read(text: str) -> Lock:
    """Parse the text of models.lock. Raises ValueError with one line of reason when it is not one."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if isinstance(data, dict) and isinstance(data.get("schema"), int) and data["schema"] > SCHEMA:
        raise ValueError(f"written by a newer ImageWorks (schema {data['schema']}, known: {SCHEMA})")
    try:
        return Lock.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "top level"
        raise ValueError(f"{where}: {first['msg']}") from None


def write(lock: Lock) -> str:
    """The text of models.lock for `lock`: sorted, indented, one trailing newline."""
    data = lock.model_dump(mode="json", by_alias=True, exclude_defaults=False, exclude_none=True)
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
