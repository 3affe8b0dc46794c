"""What would make a model fit a profile, each way alone, cheapest first.

Owns the proposals of IW410 and IW412. Each is tried with the planner's own placement before it is told, and a shorter
context also against what the roles of the model may ask for; nothing is proposed that only might fit. None is applied
without a person, because each gives something up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from imageworks.diagnostics.model import Edit, Fix
from imageworks.model.loaded import BUILT_IN, Loaded, Path
from imageworks.plan.contracts import proof
from imageworks.plan.facts import Amount, Facts, Range
from imageworks.plan.ir import GIB, MIB, Memory, Placement
from imageworks.plan.placement import Ground, gpus_of, ground, place, whole_mib
from imageworks.plan.roles import BITS
from imageworks.plan.text import gib, joined, size_word
from imageworks.values import dataclass

LEAST_CONTEXT = 1024
"""Tokens below which no context is proposed: less holds no answer beside a question."""
STEP = 256
"""Tokens to which a proposed context is rounded down."""
ROUNDED = 128 * MIB
"""Bytes to which a proposed headroom is rounded down, and host memory up; no smaller file is proposed."""
SMALLER = {
    "vllm": ("fp8", "int8", "awq"),
    "llamacpp": ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k"),
    "ollama": ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k"),
}
"""Quantizations that a file of an engine's kind is commonly had in and that need no special GPU; largest first."""


@dataclass(frozen=True, slots=True)
class Case:
    """A model that does not fit: what is known of it, where, its smallest need, and the profiles that do take it."""

    loaded: Loaded
    facts: Facts
    where: Ground
    need: Memory
    elsewhere: Sequence[str] = ()
    on_host: bool = False

    @property
    def gpus(self) -> int:
        """How many GPUs it would take."""
        return gpus_of(self.facts, self.where)

    @property
    def kv_follows(self) -> bool:
        """True when context and concurrency decide the size of the KV cache."""
        return self.facts.keeps_kv and self.facts.kv is None and self.facts.total is None

    def holds(self, facts: Facts | None = None, where: Ground | None = None) -> bool:
        """Would the planner place it, with other facts or on another ground?"""
        one = facts or self.facts
        return isinstance(place({one.id: one}, where or self.where)[one.id], Placement)


def ways_out(case: Case) -> Iterator[Fix]:
    """All ways that work."""
    yield from _shorter(case)
    yield from _eager(case)
    yield from _smaller_file(case)
    if case.on_host:
        yield from _more_host_memory(case)
    else:
        yield from _less_headroom(case)
        yield _larger_gpu(case)


def fixed_part(case: Case) -> str:
    """Why no context helps, where that is so; else ""."""
    kept = sum(term.bytes for term in case.need.terms if term.name != "KV cache")
    if not case.kv_follows or any(True for _ in _shorter(case)):
        return ""
    return f"no shorter context and no lower concurrency is enough: all but the KV cache is {gib(kept)} GiB"


def _shorter(case: Case) -> Iterator[Fix]:
    """A shorter context, or fewer requests at once; both where neither is enough alone."""
    if not case.kv_follows:
        return
    context, many = _context(case, case.facts), _concurrency(case)
    if context:
        yield _change(case, "context", context)
    if many:
        yield _change(case, "concurrency", many)
    if not context and not many and case.facts.concurrency.low > 1:
        both = _context(case, _with(case.facts, concurrency=1))
        if both:
            pair = (_change(case, "context", both), _change(case, "concurrency", 1))
            yield Fix(" and ".join(fix.text for fix in pair), edits=_all_or_none(pair))


def _all_or_none(pair: Sequence[Fix]) -> tuple[Edit, ...]:
    return tuple(edit for fix in pair for edit in fix.edits) if all(fix.edits for fix in pair) else ()


def _context(case: Case, facts: Facts) -> int:
    """The longest context below the demanded one that fits and that the model's roles can live with; 0 without one."""
    steps = range(-(-_asked(case) // STEP) * STEP, facts.context.low, STEP)
    return _largest(steps, lambda tokens: case.holds(_with(facts, context=tokens)))


def _asked(case: Case) -> int:
    """Tokens of the largest request that a role of the model allows."""
    proofs = (proof(case.loaded, role, case.facts, 0) for role in case.facts.model.roles)
    return max([LEAST_CONTEXT, *(item.total for item in proofs if item is not None)])


def _concurrency(case: Case) -> int:
    steps = range(1, case.facts.concurrency.low)
    return _largest(steps, lambda many: case.holds(_with(case.facts, concurrency=many)))


def _largest(steps: range, fits: Callable[[int], bool]) -> int:
    """The largest of `steps` that fits; 0 when none does. What is smaller than one that fits fits too."""
    count = bisect_left(steps, 1, key=lambda value: int(not fits(value)))
    return steps[count - 1] if count else 0


def _with(facts: Facts, *, context: int | None = None, concurrency: int | None = None) -> Facts:
    if context is not None:
        facts = replace(facts, context=_exactly(facts.context, context))
    return facts if concurrency is None else replace(facts, concurrency=_exactly(facts.concurrency, concurrency))


def _exactly(wanted: Range, value: int) -> Range:
    return replace(wanted, low=value, high=value)


def _change(case: Case, key: str, value: int) -> Fix:
    """A smaller number where it stands, or in the model where a default says it."""
    path: Path = ("models", case.facts.id, key)
    own = getattr(case.facts.model, key)
    if own is None:
        return Fix(f"{key}: {value} in {case.facts.id}")
    lower = "" if isinstance(own, int) else ".at_least"
    return Fix(f"{key}{lower}: {value}", edits=_edit(case, (*path, "at_least") if lower else path, str(value)))


def _edit(case: Case, path: Path, text: str) -> tuple[Edit, ...]:
    """The change of exactly the value at `path`, where the user's file has it."""
    found = case.loaded.places.get(path)
    return (Edit(found.value, text),) if found is not None and found.value.file != BUILT_IN else ()


def _eager(case: Case) -> Iterator[Fix]:
    model = case.facts.model
    if model.backend != "vllm" or not case.facts.keeps_kv or "enforce-eager" in model.vllm:
        return
    eager = model.model_copy(update={"vllm": {**model.vllm, "enforce-eager": True}})
    if case.holds(replace(case.facts, model=eager)):
        yield Fix("vllm: {enforce-eager: true}  (no CUDA graphs: slower)")


def _smaller_file(case: Case) -> Iterator[Fix]:
    weights = case.facts.weights
    if weights is None or case.facts.total is not None:
        return
    size = (_usable(case) - (case.need.total - weights.bytes)) // MIB * MIB
    if size < ROUNDED or not case.holds(replace(case.facts, weights=Amount(size, "declared", None))):
        return
    name = _quantized(case.facts, weights.bytes, size)
    yield Fix(f"a file of at most {gib(size)} GiB" + (f", about {name} of it" if name else ""))


def _usable(case: Case) -> int:
    room = case.where.profile.host_memory if case.on_host else case.where.room(case.gpus)
    return room // MIB * MIB * (1 if case.on_host else case.gpus)


def _quantized(facts: Facts, weights: int, size: int) -> str:
    """The largest quantization whose weights would be about so small, counted by bits of a weight; "" if not known."""
    bits = BITS.get(facts.quantization or "")
    names = SMALLER.get(facts.model.backend, ())
    return next((name for name in names if bits and BITS[name] < bits and weights * BITS[name] <= size * bits), "")


def _less_headroom(case: Case) -> Iterator[Fix]:
    profile, each = case.where.profile, whole_mib(case.need.total, case.gpus)
    left = case.where.bound(case.gpus).capacity // MIB * MIB - each
    least = left // ROUNDED * ROUNDED
    if not 0 <= least < profile.headroom:
        return
    if case.holds(where=ground(case.where.name, profile.model_copy(update={"headroom": least}))):
        size = size_word(least) if least else "0GiB"
        edits = _edit(case, ("profiles", case.where.name, "headroom"), size)
        yield Fix(f"profiles.{case.where.name}.headroom: {size}, if nothing else needs that GPU", edits=edits)


def _more_host_memory(case: Case) -> Iterator[Fix]:
    size = -(-whole_mib(case.need.total) // ROUNDED) * ROUNDED
    if case.holds(where=ground(case.where.name, case.where.profile.model_copy(update={"host_memory": size}))):
        edits = _edit(case, ("profiles", case.where.name, "host_memory"), size_word(size))
        yield Fix(f"profiles.{case.where.name}.host_memory: {size_word(size)}, if the machine has it", edits=edits)


def _larger_gpu(case: Case) -> Fix:
    each = whole_mib(case.need.total, case.gpus) + case.where.profile.headroom
    size = f"{-(-each * 10 // GIB) / 10:.1f}GiB or more"
    machine = f"a GPU of {size}" if case.gpus == 1 else f"{case.gpus} GPUs of {size} each"
    names = f", e.g. {joined(case.elsewhere, 'or')}" if case.elsewhere else ""
    return Fix(f"{machine}{names}")
