"""The launch command of a placed model: which engine writes it, and what all of them share.

Owns the dispatch by backend and the shape of a `Launch`. Each flag carries the reason of its value. Resolves no
path and quotes nothing: that is the targets' work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from imageworks.plan import launch_llamacpp, launch_openai, launch_vllm
from imageworks.plan.facts import Facts
from imageworks.plan.ir import Launch, Need, Secret
from imageworks.plan.launch_words import Seat
from imageworks.plan.ports import own_process
from imageworks.plan.secret_refs import texts
from imageworks.plan.sources import template_path

HOST = "127.0.0.1"


def launch(facts: Facts, seat: Seat, secrets: Mapping[str, Secret]) -> Launch | None:
    """The supervised process of a model; None for one that we do not start (Ollama, remote). `secrets` by variable."""
    if not own_process(facts.model):
        return None
    match facts.model.backend:
        case "vllm":
            flags, env = launch_vllm.flags(facts, seat), launch_vllm.env(facts)
        case "llamacpp":
            flags, env = launch_llamacpp.flags(facts, seat), {}
        case _:
            flags, env = launch_openai.flags(facts, seat), {**launch_openai.ENV, **texts(facts.model)}
    slots = seat.placement.slots if seat.placement.kind == "gpu" else ()
    return Launch(f"model-{slug(facts.id)}", flags, env, slots, (*facts.files.needs, *_template(facts)), secrets)


def _template(facts: Facts) -> Iterator[Need]:
    if facts.model.template is not None:
        yield Need(template_path(facts.model.template), "put the chat template back, or: imageworks compile")


def slug(model_id: str) -> str:
    """The id as it stands in program and unit names."""
    return model_id.replace(".", "-").replace("_", "-")
