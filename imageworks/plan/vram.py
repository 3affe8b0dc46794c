"""The only memory formula: what a loaded model needs, as a sum of named terms.

Owns the constants and the arithmetic per engine and place. Sizes are bytes over all GPUs of the model (or on the
host). Constants marked *estimated* are rounded figures for these engines, good to some hundred MiB; a measured
load replaces them (docs/decisions/010). `vram.total` replaces the whole sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from imageworks.plan.facts import Facts
from imageworks.plan.ir import GIB, Memory, Term
from imageworks.plan.text import gib, plural
from imageworks.values import dataclass

Kind = Literal["gpu", "cpu", "remote"]

VLLM_BLOCK = 16
"""Tokens of a KV block: `CacheConfig.DEFAULT_BLOCK_SIZE` of vLLM."""
VLLM_NULL_BLOCKS = 1
"""Blocks that vLLM's BlockPool keeps for itself (`null_block`); without it the last request never fits."""

VLLM_ACTIVATIONS = 6 * GIB // 10
"""Peak of a forward pass over 2048 batched tokens of a 7-20 B model (estimated)."""
CUDA_CONTEXT = 45 * GIB // 100
"""Driver context and loaded kernels of one process on one GPU (estimated; 0.3-0.5 GiB)."""
CUDA_GRAPHS = 45 * GIB // 100
"""vLLM's captured decode graphs on one GPU (estimated); none with `enforce-eager`."""
LLAMACPP_BUFFERS = 25 * GIB // 100
"""llama.cpp's compute buffers at its default batch of 512 (estimated)."""
VISION_ENCODER = 55 * GIB // 100
"""Activations of a vision tower over one large image (estimated); its weights are part of the weights."""

VLLM_ASLEEP = 11 * GIB // 10
"""What a sleeping vLLM keeps on one GPU: context, kernels, graphs (estimated after vllm#32714; measured at each sleep)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the need depends on besides the model: where it runs and how much it may hold.

    `share` is what a group with balanced or priority allocation gives it, in bytes over all its GPUs; 0: its need.
    """

    kind: Kind
    gpus: int
    context: int
    concurrency: int
    share: int = 0


def memory(facts: Facts, shape: Shape) -> Memory:
    """The sum for `facts` in `shape`; empty for a remote model and for one whose facts are missing."""
    if shape.kind == "remote" or facts.missing:
        return Memory()
    if facts.total is not None:
        why = facts.model.vram.because or "declared"
        need = Memory((Term("total", facts.total.bytes, "declared", why, facts.total.span),))
    else:
        need = Memory(tuple(_terms(facts, shape)))
    spare = shape.share - need.total
    return need if spare <= 0 else Memory(tuple(_with_spare(facts, need, spare)))


def asleep(facts: Facts, gpus: int) -> Memory:
    """What a sleeping model keeps on its GPUs."""
    why = f"context and graphs of a sleeping vLLM{'' if gpus == 1 else f', on each of {gpus} GPUs'}"
    return Memory((Term("asleep", VLLM_ASLEEP * gpus, "estimated", why, facts.span),))


def asleep_host(facts: Facts) -> int:
    """Bytes of host memory that a model sleeping at level 1 keeps its weights in; 0 for the others."""
    size = facts.weights or facts.total
    return size.bytes if facts.model.sleep == "level1" and size is not None else 0


def _with_spare(facts: Facts, need: Memory, spare: int) -> Iterator[Term]:
    """The rest of a group's share: vLLM keeps more of past requests in its KV cache; elsewhere it stays free for the model."""
    grows = facts.model.backend == "vllm" and facts.keeps_kv and facts.kv is None and facts.total is None
    for term in need.terms:
        if grows and term.name == "KV cache":
            why = f"{term.why}, and {gib(spare)} GiB of the group's share"
            yield replace(term, bytes=term.bytes + spare, why=why)
        else:
            yield term
    if not grows:
        yield Term("group share", spare, "derived", "the rest of what the group's allocation gives it")


def _terms(facts: Facts, shape: Shape) -> Iterator[Term]:
    if facts.weights is not None:
        why = "the files" if facts.weights.origin == "lock" else "as declared"
        yield Term("weights", facts.weights.bytes, facts.weights.origin, why, facts.weights.span)
    if facts.keeps_kv:
        yield kv_cache(facts, shape)
    if facts.model.backend == "vllm":
        yield from _vllm(facts, shape)
    else:
        yield from _llamacpp(shape)
    if "vision" in facts.capabilities:
        yield Term("vision encoder", VISION_ENCODER, "estimated", "activations over one large image")


def kv_cache(facts: Facts, shape: Shape) -> Term:
    """The KV cache: `vram.kv`, or tokens in flight x bytes of a token (`Facts.kv_bytes_per_token`)."""
    if facts.kv is not None:
        return Term("KV cache", facts.kv.bytes, "declared", "as declared", facts.kv.span)
    per_token = facts.kv_bytes_per_token or 0
    tokens, extra = _tokens(facts, shape)
    why = f"{shape.context} tokens x {shape.concurrency} x {_kib(per_token)} KiB{extra}"
    return Term("KV cache", tokens * per_token, "derived", why, facts.context.span)


def _tokens(facts: Facts, shape: Shape) -> tuple[int, str]:
    if facts.model.backend != "vllm":
        return shape.context * shape.concurrency, ""
    blocks = -(-shape.context // VLLM_BLOCK) * shape.concurrency + VLLM_NULL_BLOCKS
    return blocks * VLLM_BLOCK, f", and {plural(VLLM_NULL_BLOCKS, 'block')} of {VLLM_BLOCK} that vLLM keeps"


def _kib(size: int) -> str:
    return f"{size / 1024:g}"


def _vllm(facts: Facts, shape: Shape) -> Iterator[Term]:
    per_gpu = "" if shape.gpus == 1 else f", on each of {shape.gpus} GPUs"
    if not facts.keeps_kv:
        yield Term("CUDA", CUDA_CONTEXT * shape.gpus, "estimated", f"driver context{per_gpu}; no decode graphs")
        return
    yield Term("activations", VLLM_ACTIVATIONS * shape.gpus, "estimated", f"peak of a forward pass{per_gpu}")
    if facts.model.vllm.get("enforce-eager") is True:
        yield Term("CUDA", CUDA_CONTEXT * shape.gpus, "estimated", f"driver context{per_gpu}; enforce-eager, no graphs")
        return
    both = (CUDA_CONTEXT + CUDA_GRAPHS) * shape.gpus
    yield Term("CUDA + graphs", both, "estimated", f"driver context and captured graphs{per_gpu}")


def _llamacpp(shape: Shape) -> Iterator[Term]:
    """llama.cpp, Ollama (which runs it), and a server of the user's own, for which the same overheads are assumed."""
    if shape.kind == "gpu":
        yield Term("CUDA", CUDA_CONTEXT * shape.gpus, "estimated", "driver context")
    yield Term("compute buffers", LLAMACPP_BUFFERS, "estimated", "at the default batch of 512 tokens")
