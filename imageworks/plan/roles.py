"""The role tables of one profile: who may answer, in order, and who cannot.

Owns the ranking: priority, then prefer_quantizations, then selection_bias, then id; the candidates of the
fallback roles follow in declared order. A model is rejected with its reason, never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from imageworks.model.loaded import Loaded
from imageworks.plan import conversation
from imageworks.plan.contracts import Proof, lacks, proof, reach
from imageworks.plan.facts import Facts
from imageworks.plan.ir import MIB, Candidate, PlannedModel, PlannedRole, Rejected, Unplaced
from imageworks.plan.placement import Ground
from imageworks.plan.text import gib
from imageworks.values import dataclass

BITS = {
    "fp32": 32.0, "fp16": 16.0, "bf16": 16.0, "fp8": 8.0, "int8": 8.0, "q8_0": 8.5, "q6_k": 6.6, "q5_k_m": 5.7,
    "q5_k_s": 5.5, "q5_0": 5.5, "q4_k_m": 4.9, "q4_k_s": 4.6, "q4_1": 5.0, "q4_0": 4.5, "awq": 4.25, "gptq": 4.25,
    "mxfp4": 4.25, "nvfp4": 4.5, "q3_k_m": 3.9, "q2_k": 3.2,
}  # fmt: skip
"""Bits of a weight, scales included (llama.cpp's table of quantizations; group size 128 for awq and gptq)."""


URGENCY = {"background": -10, "normal": 0, "interactive": 10}
"""Words of `roles.R.urgency` as the scheduler's numbers."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What the role tables of a profile are made from."""

    loaded: Loaded
    where: Ground
    facts: Mapping[str, Facts]
    placed: Mapping[str, PlannedModel]
    unplaced: Mapping[str, Unplaced]


@dataclass(frozen=True, slots=True)
class Overflow:
    """A role whose largest request does not fit a model that lists it."""

    role: str
    model: str
    proof: Proof


@dataclass(frozen=True, slots=True)
class Tables:
    """The roles of a profile, those without a candidate that should have one, and the broken context proofs."""

    roles: tuple[PlannedRole, ...]
    empty: tuple[str, ...]
    overflows: tuple[Overflow, ...]


def tables(scene: Scene) -> Tables:
    """All role tables of a profile, by name. A role counts once a model can serve or lists it, or the file names it."""
    every = [_role(scene, name) for name in sorted(scene.loaded.stack.roles)]
    counted = tuple(role for role in every if role.candidates or role.rejected or role.name in scene.loaded.named_roles)
    empty = tuple(role.name for role in counted if not role.candidates and _must_be_served(scene, role))
    return Tables(counted, empty, tuple(_overflows(scene)))


def _must_be_served(scene: Scene, role: PlannedRole) -> bool:
    stack = scene.loaded.stack
    if role.name not in scene.loaded.named_roles or scene.where.name in stack.roles[role.name].may_be_missing_on:
        return False
    unknown = {name for name, item in scene.unplaced.items() if item.code == "IW421"}
    return not any(name in unknown for part in reach(stack, role.name) for name in _listing(scene, part))


def _listing(scene: Scene, role: str) -> tuple[str, ...]:
    return tuple(name for name in scene.facts if role in scene.loaded.stack.models[name].roles)


def _role(scene: Scene, name: str) -> PlannedRole:
    role = scene.loaded.stack.roles[name]
    return PlannedRole(
        name=name,
        requires=tuple(role.requires),
        candidates=tuple(_candidates(scene, name)),
        rejected=tuple(_rejected(scene, name)),
        images_max=role.images.max if role.images else None,
        max_edge_px=role.images.max_edge if role.images else None,
        max_tokens=role.max_tokens,
        deadline_s=role.deadline,
        fallback=tuple(role.fallback),
        urgency=URGENCY[role.urgency],
        history=conversation.history(scene.loaded.stack.proxy, role),
        images=conversation.images(scene.loaded.stack.proxy, role),
    )


def _candidates(scene: Scene, name: str) -> Iterator[Candidate]:
    taken: set[str] = set()
    for via in reach(scene.loaded.stack, name):
        able = [item for item in _listing(scene, via) if item not in taken and not failure(scene, name, via, item)]
        for model_id in sorted(able, key=lambda item: _rank(scene, via, item)):
            taken.add(model_id)
            yield _candidate(scene, via, model_id)


def failure(scene: Scene, role: str, via: str, model_id: str) -> str:
    """Why a model that lists `via` cannot answer a request of `role` here; "" when it can."""
    if model_id in scene.unplaced:
        return scene.unplaced[model_id].reason
    wrong = lacks(scene.loaded.stack.roles[role], scene.facts[model_id])
    if wrong:
        return wrong
    checked = proof(scene.loaded, role, scene.facts[model_id], scene.placed[model_id].context)
    if via != role and checked is not None and not checked.holds:
        return f"a request may need {checked.words} of {checked.context} tokens"
    return ""


def _rejected(scene: Scene, name: str) -> Iterator[Rejected]:
    for model_id in _listing(scene, name):
        reason = failure(scene, name, name, model_id)
        if reason:
            yield Rejected(model_id, reason)


def _overflows(scene: Scene) -> Iterator[Overflow]:
    for name in sorted(scene.loaded.stack.roles):
        for model_id in _listing(scene, name):
            if failure(scene, name, name, model_id):
                continue
            checked = proof(scene.loaded, name, scene.facts[model_id], scene.placed[model_id].context)
            if checked is not None and not checked.holds:
                yield Overflow(name, model_id, checked)


def _rank(scene: Scene, role: str, model_id: str) -> tuple[float, float, float, str]:
    model, profile = scene.placed[model_id], scene.where.profile
    bias = {
        "vram_efficient": float(model.memory.total),
        "balanced": 0.0,
        "quality": -BITS.get(model.quantization or "", 0.0),
    }
    preferred = _preference(scene, model)
    return (
        -float(scene.loaded.stack.models[model_id].roles[role]),
        float(len(profile.prefer_quantizations) if preferred is None else preferred),
        bias[profile.selection_bias],
        model_id,
    )


def _preference(scene: Scene, model: PlannedModel) -> int | None:
    listed = scene.where.profile.prefer_quantizations
    return next((index for index, name in enumerate(listed) if name == model.quantization), None)


def _candidate(scene: Scene, via: str, model_id: str) -> Candidate:
    model = scene.placed[model_id]
    priority = scene.loaded.stack.models[model_id].roles[via]
    preferred = _preference(scene, model)
    parts = [f"{via} {priority}"]
    if model.quantization is not None:
        place = f"no. {preferred + 1} of" if preferred is not None else "not in"
        parts.append(f"{model.quantization} is {place} prefer_quantizations")
    parts.append(
        {"gpu": f"{gib(model.memory.total)} GiB", "cpu": "on the CPU", "remote": "remote"}[model.placement.kind]
    )
    on_gpu = model.placement.kind == "gpu"
    mib = -(-model.memory.total // MIB) if on_gpu else 0
    return Candidate(model_id, priority, via, mib, model.quantization, "; ".join(parts))
