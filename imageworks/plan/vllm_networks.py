"""Whether vLLM has the network of a model.

Owns IW503: an error for a network that vLLM itself names as no longer served, a note for one that it has no code of
its own for. What is not known of a model is not judged.
"""

from __future__ import annotations

from collections.abc import Iterator

from imageworks.diagnostics.model import Diagnostic, Fix, Label, Severity
from imageworks.model.loaded import Loaded
from imageworks.model.vllm_table import VllmTable
from imageworks.plan.facts import Facts


def check(loaded: Loaded, facts: Facts, table: VllmTable) -> Iterator[Diagnostic]:
    """IW503 for one vLLM model."""
    name, why = _verdict(facts, table)
    if not name:
        return
    place = loaded.value("models", facts.id, "backend")
    if why:
        yield Diagnostic(
            "IW503",
            f"vLLM {table.version} cannot serve {name}",
            Label(place, why) if place else None,
            notes=("it would stop at start, after the weights were fetched",),
            fixes=(
                Fix("backend: openai, with the command of a server that can; or a GGUF of it with backend: llamacpp"),
            ),
        )
        return
    yield Diagnostic(
        "IW503",
        f"vLLM {table.version} has no code of its own for {name}",
        Label(place, "it would try Transformers' code: slower, if it works") if place else None,
        Severity.NOTE,
        notes=(f"models.lock names the network of {facts.id}; vLLM's registry does not",),
    )


def _verdict(facts: Facts, table: VllmTable) -> tuple[str, str]:
    """The network's class and why it cannot be served.

    No class for a network that is served or not known; no reason for one that only Transformers may have.
    """
    net = facts.architecture
    if net is None:
        return "", ""
    classes = net.classes or ()
    if any(name in table.served for name in classes):
        return "", ""
    for name, gone in table.gone.items():
        if name in classes or (not classes and gone.family == net.family):
            return name, gone.why
    return (classes[0], "") if classes else ("", "")
