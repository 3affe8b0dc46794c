"""The command line of `vllm serve`.

Owns the derived flags and the passing on of typed ones. How vLLM uses the two memory flags was read in its source
(v1/worker: `request_memory`, `determine_available_memory`), see docs/decisions/012: the KV bytes bound the cache
exactly; the utilization is only the start check, free memory >= utilization x the card's own total.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import floor
from typing import Any

from imageworks.diagnostics.model import Diagnostic, Fix, Label
from imageworks.model.loaded import Loaded
from imageworks.plan.facts import Facts
from imageworks.plan.ir import Flag
from imageworks.plan.launch_words import Seat, equals, word
from imageworks.plan.text import gib, plural

ENV = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
"""Nothing is downloaded behind the user's back, nothing is reported home."""

DERIVED = {
    "host": "proxy and backend use it",
    "port": "unit and route both use it",
    "served-model-name": "the readiness check asks for it",
    "max-model-len": "models.M.context",
    "max-num-seqs": "models.M.concurrency",
    "gpu-memory-utilization": "the memory sum of the profile",
    "kv-cache-memory-bytes": "context x concurrency, or vram.kv",
    "kv-cache-memory": "context x concurrency, or vram.kv",
    "limit-mm-per-prompt": "roles.R.images.max",
    "tensor-parallel-size": "the profile's GPUs and tensor_parallel_above",
    "model": "models.M.source",
}
"""Flags that are never typed, and what each follows from."""


def flags(facts: Facts, seat: Seat) -> tuple[Flag, ...]:
    """All words of the command, program first, in a fixed order; the typed flags last, as declared."""
    return (*_program(facts, seat), *_size(facts, seat), *_typed(facts, seat))


def _program(facts: Facts, seat: Seat) -> Iterator[Flag]:
    yield word(seat.backends.vllm.command, "backends.vllm.command", seat.command_span)
    yield word("serve", "vLLM's OpenAI-compatible server")
    yield word(facts.files.path or "", f"source {facts.files.words}", path=True)
    yield equals("host", seat.host, "only this machine; clients come through the proxy")
    yield equals("port", str(seat.port), "derived: one port per model id")
    yield equals("served-model-name", facts.id, "the id, by which readiness recognises the model", facts.span)


def _size(facts: Facts, seat: Seat) -> Iterator[Flag]:
    solved = seat.solved
    context, many = solved.shape.context, solved.shape.concurrency
    yield equals("max-model-len", str(context), f"context: {solved.context_why}", facts.context.span)
    yield equals("max-num-seqs", str(many), f"concurrency: {solved.concurrency_why}", facts.concurrency.span)
    value, why = utilization(seat)
    yield equals("gpu-memory-utilization", value, why, seat.vram_span)
    kv = next((term for term in seat.memory.terms if term.name == "KV cache"), None)
    if kv is not None and kv.bytes:
        gpus = len(seat.placement.slots)
        share = "" if gpus == 1 else f", on each of {gpus} GPUs"
        why = f"bounds the KV cache exactly: {kv.why} = {gib(kv.bytes)} GiB{share}"
        yield equals("kv-cache-memory-bytes", str(-(-kv.bytes // gpus)), why, kv.span)
    if "vision" in facts.capabilities:
        yield equals("limit-mm-per-prompt", _json({"image": seat.images_max}), seat.images_why)
    if len(seat.placement.slots) > 1:
        yield equals("tensor-parallel-size", str(len(seat.placement.slots)), seat.placement.why)


def utilization(seat: Seat) -> tuple[str, str]:
    """Planned share of the smallest card that matches, rounded down at three decimals, and its reason.

    On a larger card the fraction asks for more than the plan needs, but in proportion: the shares of models that
    are loaded together never exceed 1 - headroom share, so the start check passes beside them on every such card.
    """
    if seat.device is None:
        raise ValueError("a vLLM model without a GPU")
    need = -(-seat.memory.total // len(seat.placement.slots))
    share = max(1, floor(need * 1000 / seat.device.capacity))
    kind = "start check only" if any(term.name == "KV cache" for term in seat.memory.terms) else "upper bound"
    why = (
        f"{kind}: {gib(need)} GiB planned of {gib(seat.device.capacity)}, the smallest card that matches, rounded down"
    )
    return f"{share / 1000:.3f}", why


def _typed(facts: Facts, seat: Seat) -> Iterator[Flag]:
    for name, value in facts.model.vllm.items():
        why, span = f"typed: models.{facts.id}.vllm", seat.flag_spans.get(name)
        if value is True:
            yield Flag(f"--{name}", None, why, span)
        elif value is False:
            yield Flag(f"--no-{name}", None, why, span)
        else:
            yield equals(name, value if isinstance(value, str) else _json(value), why, span)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def check_typed(loaded: Loaded, facts: Facts, images_max: int) -> Iterator[Diagnostic]:
    """IW502 for each derived flag that the model's `vllm` map types."""
    for name, value in facts.model.vllm.items():
        plain = name.replace("_", "-").lstrip("-")
        if plain not in DERIVED:
            continue
        origin = DERIVED[plain].replace("models.M", f"models.{facts.id}")
        place = loaded.value("models", facts.id, "vllm", name)
        images = plain == "limit-mm-per-prompt"
        said = f"the roles of this model say {plural(images_max, 'image')}" if images else f"follows from {origin}"
        yield Diagnostic(
            "IW502",
            f"`{name}` is derived",
            Label(place, said) if place else None,
            notes=(
                f"a typed copy ({_json(value)}) would win over the derived value, and the plan's proofs would not hold",
            ),
            fixes=(Fix(f"remove it, and change {origin} instead"),),
        )
