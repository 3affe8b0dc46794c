"""The launch command of a placed model: which engine writes it, and what all of them share.

Owns the dispatch by backend and the shape of a `Launch`. Each flag carries the reason of its value. Resolves no
path and quotes nothing: that is the targets' work.
"""

from __future__ import annotations

from imageworks.plan import launch_llamacpp, launch_openai, launch_vllm
from imageworks.plan.facts import Facts
from imageworks.plan.ir import Launch
from imageworks.plan.launch_words import Seat
from imageworks.plan.ports import own_process

HOST = "127.0.0.1"


def launch(facts: Facts, seat: Seat) -> Launch | None:
    """The supervised process of a model; None for one that we do not start (Ollama, remote)."""
    if not own_process(facts.model):
        return None
    match facts.model.backend:
        case "vllm":
            flags, env = launch_vllm.flags(facts, seat), launch_vllm.ENV
        case "llamacpp":
            flags, env = launch_llamacpp.flags(facts, seat), {}
        case _:
            flags, env = launch_openai.flags(facts, seat), launch_openai.ENV
    slots = seat.placement.slots if seat.placement.kind == "gpu" else ()
    return Launch(f"model-{slug(facts.id)}", flags, env, slots, facts.files.needs)


def slug(model_id: str) -> str:
    """The id as it stands in program and unit names."""
    return model_id.replace(".", "-").replace("_", "-")
