"""What did not add up, term by term, for the findings of the plan.

Owns the terms of IW410 and IW412 (a model, sleeping models), IW411 and IW418 (models in one pool, or too many), IW413 (a
request in a context) and IW419 (groups that divide one pool), each with its place. Judges nothing: whoever calls has
found the sum too large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from imageworks.diagnostics.model import Shortfall, Span, Term, Unit
from imageworks.model.loaded import Loaded
from imageworks.plan.company import HOST
from imageworks.plan.contracts import RESERVE_TOKENS, Proof
from imageworks.plan.facts import Facts
from imageworks.plan.ir import Device, Memory
from imageworks.plan.placement import Ground
from imageworks.plan.text import gib, gib_needed, gib_usable, plural


def of_model(loaded: Loaded, where: Ground, memory: Memory, gpus: int) -> Shortfall:
    """A model's memory against the GPUs that it would take."""
    name = where.name if gpus == 1 else f"{plural(gpus, 'GPU')} of {where.name}"
    return Shortfall(name, Unit.BYTES, _terms(memory), _gpu(loaded, where, where.bound(gpus), gpus))


def of_group(loaded: Loaded, where: Ground, pool: int, parts: Mapping[str, int]) -> Shortfall:
    """The memory of each of several models in one pool, against the pool."""
    needed = tuple(Term(name, size, "", loaded.key("models", name)) for name, size in parts.items())
    return _in_pool(loaded, where, pool, needed)


def on_host(loaded: Loaded, where: Ground, memory: Memory) -> Shortfall:
    """A model's memory against the host memory of a profile."""
    return _in_pool(loaded, where, HOST, _terms(memory))


def of_divisions(loaded: Loaded, where: Ground, groups: Sequence[str]) -> Shortfall:
    """What several groups divide, against what is there once."""
    pool = where.devices[0].slot if where.devices else HOST
    room = where.devices[0].budget if where.devices else where.profile.host_memory
    needed = (Term(f"group {name}", room, "all of it", loaded.value("groups", name, "allocation")) for name in groups)
    return _in_pool(loaded, where, pool, tuple(needed))


def of_number(loaded: Loaded, where: Ground, models: Sequence[str]) -> Shortfall:
    """Models that must be loaded together, against how many may be."""
    needed = tuple(Term(name, 1, "", loaded.key("models", name)) for name in models)
    key = "strategy" if where.profile.strategy == "load_unload" else "max_concurrent_models"
    why = f"strategy: {where.profile.strategy}" if key == "strategy" else "declared"
    allowed = Term("at once", where.at_once, why, _place(loaded, where, key))
    return Shortfall(where.name, Unit.MODELS, needed, (allowed,))


def of_kv(facts: Facts) -> Shortfall | None:
    """One request against a declared KV cache that is too small for it; None where it is not."""
    per_token = facts.kv_bytes_per_token
    if facts.kv is None or not per_token or facts.kv.bytes // per_token >= facts.context.low:
        return None
    needed = Term("one request", facts.context.low, facts.context.why, facts.context.span)
    held = Term("KV cache", facts.kv.bytes // per_token, f"{gib(facts.kv.bytes)} GiB declared", facts.kv.span)
    return Shortfall(f"vram.kv of {facts.id}", Unit.TOKENS, (needed,), (held,))


def _in_pool(loaded: Loaded, where: Ground, pool: int, needed: tuple[Term, ...]) -> Shortfall:
    if pool == HOST:
        room = Term("host memory", where.profile.host_memory, "declared", _place(loaded, where, "host_memory"))
        return Shortfall("host memory", Unit.BYTES, needed, (room,))
    return Shortfall(f"GPU {pool}", Unit.BYTES, needed, _gpu(loaded, where, where.devices[pool], 1))


def _terms(memory: Memory) -> tuple[Term, ...]:
    return tuple(Term(term.name, term.bytes, f"{term.origin}: {term.why}", term.span) for term in memory.terms)


def told(item: Shortfall) -> str:
    """The two sums of bytes, beside the place."""
    needed, usable = (sum(term.amount for term in side) for side in (item.needed, item.available))
    return f"{gib_needed(needed)} GiB together, {gib_usable(usable)} usable"


def _gpu(loaded: Loaded, where: Ground, device: Device, gpus: int) -> tuple[Term, ...]:
    times = "" if gpus == 1 else f" x {gpus}"
    listed = ("devices", device.slot) if where.profile.match.devices else ()
    match = _place(loaded, where, "match", *listed, "vram")
    return (
        Term("GPU", device.capacity * gpus, f"lower end of match{times}", match),
        Term("headroom", -device.headroom * gpus, f"kept free{times}", _place(loaded, where, "headroom")),
    )


def _place(loaded: Loaded, where: Ground, *path: str | int) -> Span | None:
    return loaded.value("profiles", where.name, *path)


def of_request(loaded: Loaded, role: str, model_id: str, proof: Proof) -> Shortfall:
    """The largest request of a role against the context of a model."""
    images, answer = loaded.value("roles", role, "images", "max"), loaded.value("roles", role, "max_tokens")
    needed = (
        Term("images", proof.images * proof.tokens_of_image, f"{proof.images} x {proof.tokens_of_image}", images),
        Term("answer", proof.answer, "max_tokens", answer),
        Term("prompt", proof.prompt, "text of the request"),
        Term("reserve", RESERVE_TOKENS, "template and special tokens"),
    )
    held = Term("context", proof.context, "", loaded.value("models", model_id, "context"))
    return Shortfall(f"context of {model_id}", Unit.TOKENS, needed, (held,))
