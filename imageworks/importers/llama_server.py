"""The command line of llama.cpp's server -> keys of a model.

Owns the meaning of its flags, short and long. Context is divided by the number of slots, for llama.cpp shares it
among them and `context` here is what one request may use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from imageworks.importers.arguments import Argument, arguments
from imageworks.importers.yaml_text import Value

_LONG: Mapping[str, str] = {
    "m": "model", "mm": "mmproj", "hf": "hf-repo", "hfr": "hf-repo", "hff": "hf-file", "c": "ctx-size",
    "np": "parallel", "ngl": "n-gpu-layers", "gpu-layers": "n-gpu-layers", "a": "alias", "t": "threads",
    "temperature": "temp", "s": "seed", "n": "predict", "n-predict": "predict", "embeddings": "embedding",
    "rerank": "reranking",
}  # fmt: skip
_SAMPLING: Mapping[str, str] = {
    "temp": "temperature", "top-p": "top_p", "top-k": "top_k", "min-p": "min_p", "seed": "seed", "predict": "max_tokens",
    "repeat-penalty": "repetition_penalty", "presence-penalty": "presence_penalty",
    "frequency-penalty": "frequency_penalty",
}  # fmt: skip
_DERIVED = frozenset({"port", "host", "alias"})
_SECRET = frozenset({"api-key", "api-key-file", "hf-token"})
_SOURCE: Mapping[str, str] = {"model": "path", "mmproj": "mmproj", "hf-repo": "hf", "hf-file": "file"}
_READ_LATER = frozenset({"ctx-size", "parallel", "n-gpu-layers", "embedding", "reranking"})
_NUMBER = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,9})?")
ALL_LAYERS = 99
"""The number that people write for "all of them"."""


@dataclass(slots=True)
class LlamaServer:
    """What the command says; `other` are flags without a key here, `open` a question that keeps the model out."""

    fields: dict[str, Value] = field(default_factory=dict)
    source: dict[str, Value] = field(default_factory=dict)
    threads: int | None = None
    dropped: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    split: int | None = None


def read(words: Sequence[str]) -> LlamaServer:
    """The flags behind the program's name."""
    found = LlamaServer()
    values: dict[str, str | None] = {}
    for item in arguments(words):
        if item.flag:
            values[_LONG.get(item.flag, item.flag)] = item.value
        else:
            found.other.append(str(item.value))
    sampling: dict[str, Value] = {}
    for name, value in values.items():
        _one(Argument(name, value), found, sampling)
    found.fields |= _abilities(values)
    _sizes(values, found)
    if sampling:
        found.fields["sampling"] = sampling
    return found


def _one(item: Argument, found: LlamaServer, sampling: dict[str, Value]) -> None:
    name, value = item.flag, item.value
    if name in _DERIVED:
        found.dropped.append(f"--{name}")
    elif name in _SECRET:
        found.secrets.append(f"--{name}")
    elif name in _SOURCE and value is not None:
        found.source[_SOURCE[name]] = value.partition(":")[0] if name == "hf-repo" else value
    elif name in _SAMPLING and value is not None and _NUMBER.fullmatch(value):
        if not (name in {"predict", "seed"} and value.startswith("-")):  # -1: no limit, a new one each time
            sampling[_SAMPLING[name]] = float(value) if "." in value else int(value)
    elif name == "threads":
        found.threads = _whole(value)
    elif name not in _READ_LATER:
        found.other.append(f"--{name}" if len(name) > 2 else f"-{name}")  # noqa: PLR2004 - short flags


def _abilities(values: Mapping[str, str | None]) -> dict[str, Value]:
    for flag, words in (("mmproj", ["chat", "vision"]), ("embedding", ["embedding"]), ("reranking", ["rerank"])):
        if flag in values:
            return {"capabilities": list(words)}
    return {}


def _sizes(values: Mapping[str, str | None], found: LlamaServer) -> None:
    slots, context, layers = (_whole(values.get(name)) for name in ("parallel", "ctx-size", "n-gpu-layers"))
    if slots:
        found.fields["concurrency"] = slots
    if context:
        found.fields["context"] = max(1, context // (slots or 1))
    if layers == 0:
        found.fields["placement"] = "cpu"
    elif layers is not None and layers < ALL_LAYERS:
        found.split = layers


def _whole(value: str | None) -> int | None:
    return int(value) if value is not None and re.fullmatch(r"[0-9]{1,9}", value) else None
