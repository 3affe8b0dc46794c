"""The command line of `vllm serve`.

Owns the derived flags and the passing on of typed ones, which `vllm_rules` has checked. How vLLM uses the two memory flags was read in its source
(v1/worker: `request_memory`, `determine_available_memory`), see docs/decisions/012: the KV bytes bound the cache
exactly; the utilization is only the start check, free memory >= utilization x the card's own total.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import floor
from typing import Any

from imageworks.diagnostics.model import Span
from imageworks.model.vllm_table import VllmFlag, table
from imageworks.plan.facts import Facts
from imageworks.plan.ir import Flag
from imageworks.plan.launch_words import Seat, equals, pair, word
from imageworks.plan.sources import template_path
from imageworks.plan.text import gib

ENV = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
"""Nothing is downloaded behind the user's back, nothing is reported home."""

SLEEP_ENV = {"VLLM_SERVER_DEV_MODE": "1"}
"""vLLM serves /sleep and /wake_up only so; the proxy lets neither pass, nor what else that mode opens."""


def env(facts: Facts) -> Mapping[str, str]:
    """The environment of the command."""
    return ENV if facts.model.sleep == "none" else {**ENV, **SLEEP_ENV}


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
    if facts.model.sleep != "none":
        yield Flag("--enable-sleep-mode", None, f"sleep: {facts.model.sleep}", facts.span)
    if facts.model.template is not None:
        yield Flag("--chat-template", template_path(facts.model.template), "template", facts.span, path=True)


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
    """What does not work is left out here and told by `vllm_rules`; then there is no plan."""
    known = table(seat.backends.vllm.version)
    for name, value in facts.model.vllm.items():
        flag = known.find(name) if known else None
        if flag is not None:
            yield from typed_words(flag, value, f"typed: models.{facts.id}.vllm", seat.flag_spans.get(name))


def typed_words(flag: VllmFlag, value: Any, why: str, span: Span | None) -> Iterator[Flag]:
    """One flag as its parser reads it. Of several words only the first may stand behind an `=`."""
    if isinstance(value, bool):
        yield Flag(f"--{'' if value else 'no-'}{flag.name}", None, why, span)
    elif isinstance(value, tuple) and flag.repeats:
        yield from (equals(flag.name, _text(item), why, span) for item in value)
    elif isinstance(value, tuple) and flag.many and value:
        yield pair(flag.name, _text(value[0]), why, span)
        yield from (word(_text(item), why, span) for item in value[1:])
    else:
        yield equals(flag.name, _text(value), why, span)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
