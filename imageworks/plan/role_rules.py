"""What is said about roles that cannot be served, over all profiles at once.

Owns IW402 (a role without a model), IW410 and IW412 (the sum of a model that such a role or a pin needs) and IW413 (a
request that exceeds a context). One finding for a role, a model, or a pair of both, however many profiles it concerns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from imageworks.diagnostics.model import Diagnostic, Fix, Label, Shortfall
from imageworks.model.loaded import BUILT_IN, Loaded
from imageworks.plan import shortfalls
from imageworks.plan.contracts import Proof, reach
from imageworks.plan.facts import Facts
from imageworks.plan.ir import Unplaced
from imageworks.plan.placement import gpus_of
from imageworks.plan.roles import Scene, Tables, failure
from imageworks.plan.rules import is_named, label
from imageworks.plan.text import gib_needed, gib_usable, joined, size_word
from imageworks.plan.ways_out import Case, fixed_part, ways_out
from imageworks.values import dataclass

MOST_NAMES = 3
"""Profiles that are named as machines where a model fits; those with the smallest GPUs."""


@dataclass(frozen=True, slots=True)
class Act:
    """One profile's scene and its role tables."""

    scene: Scene
    tables: Tables

    @property
    def name(self) -> str:
        """The profile."""
        return self.scene.where.name


def check(loaded: Loaded, acts: Sequence[Act]) -> Iterator[Diagnostic]:
    """All findings about roles."""
    empty: dict[str, list[Act]] = {}
    for act in acts:
        for role in act.tables.empty:
            empty.setdefault(role, []).append(act)
    for role, where in sorted(empty.items()):
        yield _empty(loaded, role, where)
    yield from _sums(loaded, acts, empty)
    yield from _overflows(loaded, acts)


def _empty(loaded: Loaded, role: str, acts: Sequence[Act]) -> Diagnostic:
    names = [act.name for act in acts]
    notes = tuple(line for act in acts for line in _failures(act, role, named=len(acts) > 1))
    missing = sorted({*loaded.stack.roles[role].may_be_missing_on, *names})
    return Diagnostic(
        "IW402",
        f"role `{role}` has no model on {joined(names)}",
        _role_label(loaded, role, "every candidate fails:" if notes else "no candidate at all"),
        notes=notes or ("no model lists this role or one of its fallbacks",),
        fixes=(
            Fix("a smaller model for this role, or one that runs on the CPU"),
            Fix(f"may_be_missing_on: [{', '.join(missing)}]  (clients then get 404 with the reason)"),
        ),
    )


def _role_label(loaded: Loaded, role: str, text: str) -> Label | None:
    span = loaded.key("roles", role)
    return Label(span, text) if span else None


def _failures(act: Act, role: str, *, named: bool) -> Iterator[str]:
    stack = act.scene.loaded.stack
    prefix = f"{act.name}: " if named else ""
    for via in reach(stack, role):
        for model_id in sorted(act.scene.facts):
            if via in stack.models[model_id].roles:
                yield f"{prefix}{model_id}: {failure(act.scene, role, via, model_id)}"


def _sums(loaded: Loaded, acts: Sequence[Act], empty: Mapping[str, Sequence[Act]]) -> Iterator[Diagnostic]:
    for model_id in sorted(loaded.stack.models):
        found = [act for act in acts if _too_large(act.scene.unplaced.get(model_id))]
        needing = [act for act in found if _needed(loaded, model_id, act, empty)]
        if needing:
            best = max(needing, key=lambda act: _nearest(act, model_id))
            placed = [act for act in acts if model_id in act.scene.placed]
            yield _sum(
                model_id,
                best,
                [act.name for act in needing if act is not best],
                [act.name for act in sorted(placed, key=lambda act: (act.scene.where.budget, act.name))],
            )


def _nearest(act: Act, model_id: str) -> tuple[bool, int, str]:
    """Order of the profiles that a model does not fit: a GPU before the host, then the one with the most room."""
    where, on_gpu = act.scene.where, act.scene.unplaced[model_id].code == "IW410"
    return on_gpu, where.budget if on_gpu else where.profile.host_memory, act.name


def _too_large(item: Unplaced | None) -> bool:
    return item is not None and item.code in {"IW410", "IW412"} and bool(item.memory.terms)


def _needed(loaded: Loaded, model_id: str, act: Act, empty: Mapping[str, Sequence[Act]]) -> bool:
    model = loaded.stack.models[model_id]
    pinned = model.keep == "pinned" and is_named(loaded, act.name)
    return pinned or any(act in empty.get(role, ()) for role in model.roles)


def _sum(model_id: str, act: Act, others: Sequence[str], elsewhere: Sequence[str]) -> Diagnostic:
    scene, where, item = act.scene, act.scene.where, act.scene.unplaced[model_id]
    facts, loaded, on_host = scene.facts[model_id], scene.loaded, item.code == "IW412"
    gpus = gpus_of(facts, where)
    sums = (
        shortfalls.on_host(loaded, where, item.memory)
        if on_host
        else shortfalls.of_model(loaded, where, item.memory, gpus)
    )
    starved = shortfalls.of_kv(facts) if sums.excess <= 0 else None
    if starved is not None:
        return _starved(facts, starved)
    usable = where.profile.host_memory if on_host else where.room(gpus) * gpus
    place = loaded.key("models", model_id)
    case = Case(loaded, facts, where, item.memory, elsewhere[:MOST_NAMES], on_host)
    excuse = "keep: grace" if facts.model.keep == "pinned" else "may_be_missing_on in its roles"
    named = f"the host memory of {where.name}" if on_host else where.name
    notes = (f"nor {joined(others, 'or')}" if others else "", fixed_part(case))
    return Diagnostic(
        item.code,
        f"{model_id} does not fit {named}: {gib_needed(sums.excess)} GiB short",
        Label(place, f"{gib_needed(item.memory.total)} GiB needed, {gib_usable(usable)} usable") if place else None,
        notes=tuple(note for note in notes if note),
        fixes=(*ways_out(case), Fix(excuse)),
        sums=(sums,),
    )


def _starved(facts: Facts, sums: Shortfall) -> Diagnostic:
    """The model itself fits, the KV cache that it declares does not hold one request."""
    (request,), (held,) = sums.needed, sums.available
    size = size_word(request.amount * (facts.kv_bytes_per_token or 0))
    return Diagnostic(
        "IW410",
        f"the declared KV cache of {facts.id} cannot hold one request",
        Label(held.span, f"{held.amount} tokens, a request may have {request.amount}") if held.span else None,
        fixes=(Fix(f"kv: {size} or more"), Fix("remove kv: it then follows from context and concurrency")),
        sums=(sums,),
    )


def _overflows(loaded: Loaded, acts: Sequence[Act]) -> Iterator[Diagnostic]:
    found: dict[tuple[str, str], list[tuple[str, Proof]]] = {}
    for act in acts:
        for item in act.tables.overflows:
            found.setdefault((item.role, item.model), []).append((act.name, item.proof))
    for (role, model_id), cases in sorted(found.items()):
        yield _overflow(loaded, role, model_id, cases)


def _overflow(loaded: Loaded, role: str, model_id: str, cases: Sequence[tuple[str, Proof]]) -> Diagnostic:
    profile, worst = min(cases, key=lambda case: (case[1].context, case[0]))
    others = [name for name, _ in cases if name != profile]
    images = (
        f"{worst.images} x {worst.tokens_of_image} = {worst.images * worst.tokens_of_image} tokens, before any text"
    )
    asked = label(loaded, ("roles", role, "images", "max"), images)
    held = label(loaded, ("models", model_id, "context"), f"{worst.context} on {profile}")
    places = [item for item in (asked, held) if item is not None]
    places.sort(key=lambda item: item.span.file == BUILT_IN)  # a built-in role is not where the user looks first
    return Diagnostic(
        "IW413",
        f"one request of {role} can exceed the context of {model_id}",
        next(iter(places), None),
        secondary=tuple(places[1:]),
        notes=(f"also on {joined(others)}",) if others else (),
        fixes=(
            Fix(f"context: {-(-worst.total // 256) * 256} or more in {model_id}"),
            Fix(f"a smaller images.max or max_edge in {role}"),
            Fix(f"remove {role} from {model_id}"),
        ),
        sums=(shortfalls.of_request(loaded, role, model_id, worst),),
    )
