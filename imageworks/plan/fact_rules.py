"""Faults in what is known of a model, whatever the profile.

Owns IW414 (a context beyond what the weights were made for), IW420 (two quantizations for one file), IW421
(a fact lacks, so the model is left out) and IW422 (a memory total that is not explained). Each is found once
for the stack.
"""

from __future__ import annotations

from collections.abc import Iterator

from imageworks.diagnostics.model import Diagnostic, Fix, Label, Severity
from imageworks.model.loaded import Loaded
from imageworks.model.sources import OllamaSource
from imageworks.plan.facts import Facts
from imageworks.plan.text import gib

VRAM_KEY = "vram"


def check(loaded: Loaded, facts: Facts) -> Iterator[Diagnostic]:
    """All faults of one model's facts."""
    yield from _context(loaded, facts)
    yield from _quantization(loaded, facts)
    yield from _total(loaded, facts)
    yield from _missing(facts)


def _context(loaded: Loaded, facts: Facts) -> Iterator[Diagnostic]:
    limit = facts.architecture.context_limit if facts.architecture else None
    if limit is None or facts.context.low <= limit:
        return
    span = loaded.value("models", facts.id, "context")
    yield Diagnostic(
        "IW414",
        f"{facts.id} cannot hold {facts.context.low} tokens",
        Label(span, f"its weights were made for {limit}") if span else None,
        notes=("beyond that limit the engine refuses to start or the answers fall apart",),
        fixes=(Fix(f"context: {limit}"),),
    )


def _quantization(loaded: Loaded, facts: Facts) -> Iterator[Diagnostic]:
    declared, locked = facts.model.quantization, facts.locked_quantization
    if declared is None or locked is None or declared == locked.lower():
        return
    span = loaded.value("models", facts.id, "quantization")
    yield Diagnostic(
        "IW420",
        f"{facts.id} is {locked}, not {declared}",
        Label(span, f"models.lock says {locked}") if span else None,
        notes=("the lock was read from the weights; memory and role order follow from it",),
        fixes=(
            Fix(f"quantization: {locked}"),
            Fix("or delete the model's entry in models.lock if the file was replaced"),
        ),
    )


def _total(loaded: Loaded, facts: Facts) -> Iterator[Diagnostic]:
    vram = facts.model.vram
    place = loaded.value("models", facts.id, VRAM_KEY, "total" if vram.total is not None else "because")
    if vram.total is not None and vram.because is None:
        yield Diagnostic(
            "IW422",
            f"the memory total of {facts.id} gives no reason",
            Label(place, "replaces the whole sum") if place else None,
            notes=("a number without its origin cannot be checked when something no longer fits",),
            fixes=(Fix('add  because: "where the figure comes from"'),),
        )
    if vram.total is not None and (vram.weights is not None or vram.kv is not None):
        yield Diagnostic(
            "IW422",
            f"{facts.id} declares a memory total and parts of it",
            Label(place, "replaces the whole sum, parts included") if place else None,
            fixes=(Fix("keep total, or keep weights and kv"),),
        )
    if vram.total is None and vram.because is not None:
        yield Diagnostic(
            "IW422",
            f"{facts.id} gives a reason for a memory total that is not there",
            Label(place, "belongs to `total`") if place else None,
            fixes=(Fix("remove it, or add  total: …"),),
        )


def _missing(facts: Facts) -> Iterator[Diagnostic]:
    if not facts.missing:
        return
    known = f"; its weights are {gib(facts.weights.bytes)} GiB" if facts.weights else ""
    yield Diagnostic(
        "IW421",
        f"{facts.id} cannot be planned yet",
        Label(facts.span, "left out of every profile until it is known") if facts.span else None,
        severity=Severity.WARNING,
        notes=(f"neither stack.yaml nor models.lock tells {facts.missing}{known}",),
        fixes=_how_to_learn(facts),
    )


def _how_to_learn(facts: Facts) -> tuple[Fix, ...]:
    declare = Fix('vram: {total: 5GiB, because: "nvidia-smi after a load"}  with your own figure')
    if isinstance(facts.model.source, OllamaSource) or not facts.files.needs:
        return (declare,)
    hint = facts.files.needs[0].hint
    get = f"{hint}, then " if hint.startswith("hf ") else ""
    return (Fix(f"{get}run `imageworks up` where the files are: it reads their header into models.lock"), declare)
