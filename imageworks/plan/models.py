"""A placed model in its final form.

Owns the assembly: facts + placement + solved shape + port -> `PlannedModel`, with the layers of grace and start
timeout (model, else profile, else defaults).
"""

from __future__ import annotations

from imageworks.model.loaded import Loaded
from imageworks.plan import secret_refs
from imageworks.plan.contracts import images_max
from imageworks.plan.conversation import tokens_of_image
from imageworks.plan.facts import Facts
from imageworks.plan.ir import Memory, Placement, PlannedModel
from imageworks.plan.launch import HOST, launch, slug
from imageworks.plan.launch_words import Seat
from imageworks.plan.placement import Ground
from imageworks.plan.ranges import Solved
from imageworks.plan.vram import asleep, asleep_host, memory


def planned_model(
    loaded: Loaded,
    where: Ground,
    facts: Facts,
    *,
    placement: Placement,
    solved: Solved,
    port: int | None,
    never_with: tuple[str, ...],
) -> PlannedModel:
    """The model as every emitter and the runtime see it."""
    stack, model = loaded.stack, facts.model
    seat = _seat(loaded, where, facts, placement=placement, solved=solved, port=port)
    layers = (model.grace, where.profile.grace, stack.defaults.grace)
    starts = (model.start_timeout, where.profile.start_timeout, stack.defaults.start_timeout)
    return PlannedModel(
        id=facts.id,
        slug=slug(facts.id),
        aliases=tuple(model.aliases),
        backend=model.backend,
        quantization=facts.quantization,
        capabilities=facts.capabilities,
        context=solved.shape.context,
        context_why=solved.context_why,
        concurrency=solved.shape.concurrency,
        concurrency_why=solved.concurrency_why,
        images_max=seat.images_max,
        placement=placement,
        memory=seat.memory,
        launch=launch(facts, seat, secret_refs.secrets(stack, model)),
        key=secret_refs.key(stack, model),
        host=HOST,
        port=port,
        url=_url(loaded, facts),
        served_name=_served_name(facts),
        sampling={name: value for name, value in model.sampling if value is not None},
        grace_s=next(value for value in layers if value is not None),
        start_timeout_s=next(value for value in starts if value is not None),
        pinned=model.keep == "pinned",
        package=facts.files.package,
        span=facts.span,
        sleep=model.sleep,
        asleep=asleep(facts, len(placement.slots)) if model.sleep != "none" else Memory(),
        asleep_host=asleep_host(facts),
        never_with=never_with,
        tool_calls=model.tool_calls,
        params_set=model.params.set,
        params_strip=tuple(sorted(model.params.strip)),
        variants=model.variants,
        image_tokens=tokens_of_image(loaded.stack, facts) if "vision" in facts.capabilities else 0,
        template_sha256=loaded.inputs.get(model.template.path) if model.template else None,
    )


def _seat(
    loaded: Loaded, where: Ground, facts: Facts, *, placement: Placement, solved: Solved, port: int | None
) -> Seat:
    most, why = images_max(loaded.stack, facts)
    on_gpu = placement.kind == "gpu" and where.devices
    return Seat(
        placement=placement,
        solved=solved,
        memory=memory(facts, solved.shape),
        device=max((where.devices[slot] for slot in placement.slots), key=lambda item: item.capacity)
        if on_gpu
        else None,
        host=HOST,
        port=port or 0,
        images_max=most,
        images_why=why,
        backends=loaded.stack.backends,
        command_span=loaded.value("backends", facts.model.backend, "command"),
        vram_span=loaded.value("profiles", where.name, "match", "vram"),
        flag_spans={name: loaded.value("models", facts.id, "vllm", name) for name in facts.model.vllm},
    )


def _url(loaded: Loaded, facts: Facts) -> str | None:
    if facts.model.backend == "ollama":
        return loaded.stack.backends.ollama.url
    return facts.model.url


def _served_name(facts: Facts) -> str:
    """The tag for Ollama; else the id, which our launch commands hand to the engine."""
    tag = getattr(facts.model.source, "ollama", None)
    return tag if isinstance(tag, str) else facts.id
