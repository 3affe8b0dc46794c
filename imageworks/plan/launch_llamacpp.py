"""The command line of llama.cpp's server: the one in the wheel, or a program of the same flags.

Owns the flags. All layers are on the GPU or none: a model is never split between GPU and CPU in silence.
"""

from __future__ import annotations

from collections.abc import Iterator

from imageworks.plan.facts import Facts
from imageworks.plan.ir import Flag
from imageworks.plan.launch_words import Seat, pair, word
from imageworks.plan.sources import template_path

BUNDLED = "bundled"
ALL_LAYERS = "999"


def flags(facts: Facts, seat: Seat) -> tuple[Flag, ...]:
    """All words of the command, program first, in a fixed order."""
    return (*_program(seat), *_model(facts, seat), *_size(facts, seat))


def _program(seat: Seat) -> Iterator[Flag]:
    command = seat.backends.llamacpp.command
    if command != BUNDLED:
        yield word(command, "backends.llamacpp.command", seat.command_span)
        return
    yield word("{python}", "bundled: the llama.cpp server inside the xllamacpp wheel", seat.command_span, path=True)
    yield word("-m", "bundled")
    yield word("imageworks.services.llama_server", "our launcher around it: ends at once on SIGTERM")


def _model(facts: Facts, seat: Seat) -> Iterator[Flag]:
    yield pair("model", facts.files.path or "", f"source {facts.files.words}", facts.span, path=True)
    yield pair("alias", facts.id, "the id, by which readiness recognises the model", facts.span)
    yield pair("host", seat.host, "only this machine; clients come through the proxy")
    yield pair("port", str(seat.port), "derived: one port per model id")


def _size(facts: Facts, seat: Seat) -> Iterator[Flag]:
    shape, solved = seat.solved.shape, seat.solved
    why = f"{shape.context} tokens x {shape.concurrency} at once; context: {solved.context_why}"
    yield pair("ctx-size", str(shape.context * shape.concurrency), why, facts.context.span)
    yield pair("parallel", str(shape.concurrency), f"concurrency: {solved.concurrency_why}", facts.concurrency.span)
    yield pair("threads", str(seat.backends.llamacpp.threads), "backends.llamacpp.threads")
    layers = ALL_LAYERS if seat.placement.kind == "gpu" else "0"
    yield pair("n-gpu-layers", layers, f"all layers or none: {seat.placement.why}")
    if facts.model.template is not None:
        yield pair("chat-template-file", template_path(facts.model.template), "template", facts.span, path=True)
    if facts.files.mmproj is not None:
        yield pair("mmproj", facts.files.mmproj, "vision projector of the source", facts.span, path=True)
