"""Flags of `vllm serve` -> keys of a model.

Owns which flags are derived and so dropped, which become keys (context, concurrency, quantization), and which are
refused: those that run foreign code, carry a key, or name a path of one machine. The others go to the `vllm` map.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from imageworks.importers.arguments import Argument
from imageworks.importers.folders import is_absolute
from imageworks.importers.yaml_text import Value

DERIVED = frozenset(
    {
        "host", "port", "served-model-name", "gpu-memory-utilization", "kv-cache-memory", "kv-cache-memory-bytes",
        "limit-mm-per-prompt", "tensor-parallel-size", "tp", "model", "uds",
    }
)  # fmt: skip
REFUSED = {
    "trust-remote-code": "it would run code of the repository on your machine",
    "api-key": "a secret does not belong into a stack",
    "hf-token": "a secret does not belong into a stack",
    "ssl-keyfile": "the proxy is the only door",
    "ssl-certfile": "the proxy is the only door",
    "chat-template": "this language has no key for templates yet; vLLM uses the one inside the weights",
}
_FLAG = re.compile(r"[a-z0-9][a-z0-9.-]*")
_COUNT = re.compile(r"[0-9]{1,9}")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,9})?")


@dataclass(slots=True)
class VllmFlags:
    """What the flags say. `dropped` are derived, `refused` maps a flag to the reason, `twice` stood more than once."""

    fields: dict[str, Value] = field(default_factory=dict)
    typed: dict[str, Value] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    template: str | None = None
    words: list[str] = field(default_factory=list)


def read(found: Sequence[Argument]) -> VllmFlags:
    """Sort the flags of a vLLM command; of a flag that stands twice the last counts, as in vLLM itself."""
    flags = VllmFlags()
    seen: set[str] = set()
    for item in found:
        if not item.flag:
            flags.words.append(item.value or "")
            continue
        if item.flag in seen:
            flags.twice.append(item.flag)
        seen.add(item.flag)
        _sort(item, flags)
    return flags


def _sort(item: Argument, flags: VllmFlags) -> None:
    name, value = item.flag, item.value
    if name == "chat-template":
        flags.template = value
    if name in DERIVED:
        flags.dropped.append(name)
    elif name in REFUSED:
        flags.refused[name] = REFUSED[name]
    elif name in {"max-model-len", "max-num-seqs"}:
        key = "context" if name == "max-model-len" else "concurrency"
        if value is not None and _COUNT.fullmatch(value) and int(value) > 0:
            flags.fields[key] = int(value)
        else:
            flags.refused[name] = f"`{value}` is not a whole number"
    elif not _FLAG.fullmatch(name):
        flags.refused[name] = "not a flag of vLLM"
    elif value is not None and is_absolute(value):
        flags.refused[name] = "its path holds on one machine only"
    else:
        _typed(name, value, flags)


def _typed(name: str, value: str | None, flags: VllmFlags) -> None:
    positive = name.removeprefix("no-")
    flags.typed.pop(positive, None)
    if value is None:
        flags.typed[positive] = positive == name
    else:
        flags.typed[name] = _number(value) if _NUMBER.fullmatch(value) else value


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)
