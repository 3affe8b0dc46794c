"""Loaded -> plans: the one pass from what a person wrote to what runs, for every profile.

Owns the order of the steps and the assembly of `Plan`. All judgement is in the modules it calls; all findings of
all profiles are collected, and with an error among them there are no plans.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from imageworks.diagnostics.model import Diagnostic, Fix, Severity
from imageworks.model.loaded import Loaded
from imageworks.plan import (
    apart,
    fact_rules,
    overlap,
    ports,
    profile_rules,
    resident_rules,
    role_rules,
    rules,
    vllm_rules,
)
from imageworks.plan.allocation import divisions
from imageworks.plan.bundle import bundle
from imageworks.plan.company import Sizes, sizes_of
from imageworks.plan.digest import digest
from imageworks.plan.facts import Facts, gather
from imageworks.plan.ir import Bundle, Leases, Placement, Plan, PlannedModel, Policy, Unplaced
from imageworks.plan.models import planned_model
from imageworks.plan.placement import Ground, Outcome, ground, least, place
from imageworks.plan.programs import STOP_WAIT_S, options, proxy, root_dirs
from imageworks.plan.ranges import Table, solve
from imageworks.plan.roles import Scene, tables
from imageworks.values import dataclass

OUT = "generated"
BROKEN_PINS = frozenset({"IW406", "IW418"})


@dataclass(frozen=True, slots=True)
class Draft:
    """One profile, worked out: its scene and role tables, its residents, and what was found on the way."""

    act: role_rules.Act
    residents: tuple[str, ...]
    findings: tuple[Diagnostic, ...]


def resolve(loaded: Loaded, out: str = OUT) -> tuple[tuple[Plan, ...], tuple[Diagnostic, ...]]:
    """The plans of all profiles, sorted by name, and all findings; no plans when one of them is an error.

    `out` is the folder of the generated files, relative to the stack.
    """
    findings: list[Diagnostic] = []
    drafts: list[Draft] = []
    for view in loaded.views():
        facts = gather(view)
        own = [_draft(view, facts, name) for name in sorted(view.stack.profiles) if loaded.on(name) is view]
        findings += _of_the_stack(view, facts)
        findings += [item for draft in own for item in draft.findings]
        findings += role_rules.check(view, [draft.act for draft in own])
        drafts += own
    findings = list(dict.fromkeys(findings))  # what several views have in common is told once
    if any(item.is_error for item in findings):
        return (), tuple(findings)
    drafts.sort(key=lambda draft: draft.act.name)
    prompts = {id(view): bundle(view) for view in loaded.views()}
    return tuple(_plan(draft, prompts[id(draft.act.scene.loaded)], out) for draft in drafts), tuple(findings)


def _of_the_stack(loaded: Loaded, facts: Mapping[str, Facts]) -> Iterator[Diagnostic]:
    yield from overlap.check(loaded)
    for name in sorted(loaded.stack.profiles):
        yield from profile_rules.check(loaded, name)
    yield from rules.check_engines(loaded)
    yield from ports.check(loaded)
    for item in facts.values():
        yield from fact_rules.check(loaded, item)
    yield from vllm_rules.check_stack(loaded, facts)


def _draft(loaded: Loaded, facts: Mapping[str, Facts], name: str) -> Draft:
    draft = _drafted(loaded, facts, name, pins=True)
    broken = [item for item in draft.findings if item.code in BROKEN_PINS]
    if not broken or rules.is_named(loaded, name):
        return draft
    # a machine that the stack does not speak of: a pin meant for another one does not count there
    unpinned = _drafted(loaded, facts, name, pins=False)
    if any(item.code in BROKEN_PINS for item in unpinned.findings):
        return draft  # a group does it
    notes = tuple(replace(item, severity=Severity.NOTE, fixes=(_say_so(name),)) for item in broken)
    return replace(unpinned, findings=(*unpinned.findings, *notes))


def _say_so(profile: str) -> Fix:
    return Fix(f"nothing: no pin counts on {profile} then. To decide it yourself:  profiles: {{{profile}: {{…}}}}")


def _drafted(loaded: Loaded, facts: Mapping[str, Facts], name: str, *, pins: bool) -> Draft:
    where = ground(name, loaded.stack.profiles[name])
    outcomes = place(facts, where)
    residents = rules.residents_of(loaded, where, outcomes, pins=pins)
    spots = {name: item for name, item in outcomes.items() if isinstance(item, Placement)}
    placed = _placed(loaded, facts, where, spots, residents)
    if not pins:
        placed = {name: replace(model, pinned=False) for name, model in placed.items()}
    unplaced = {name: item for name, item in outcomes.items() if isinstance(item, Unplaced)}
    scene = Scene(loaded, where, facts, placed, unplaced)
    findings = _of_a_profile(loaded, scene, outcomes, residents)
    return Draft(role_rules.Act(scene, tables(scene)), residents, tuple(findings))


def _placed(
    loaded: Loaded,
    facts: Mapping[str, Facts],
    where: Ground,
    spots: Mapping[str, Placement],
    residents: Iterable[str],
) -> Mapping[str, PlannedModel]:
    groups = tuple(rules.groups_of(loaded, where.name).values())
    division = next(iter(divisions(loaded.stack, where.name)), None)
    solved = solve(Table(facts, spots, groups, tuple(residents), division), where)
    numbers, strangers = ports.ports(loaded.stack), apart.never_with(loaded.stack)
    return {
        name: planned_model(
            loaded,
            where,
            facts[name],
            placement=spot,
            solved=solved[name],
            port=numbers.get(name),
            never_with=strangers.get(name, ()),
        )
        for name, spot in spots.items()
    }


def _of_a_profile(
    loaded: Loaded,
    scene: Scene,
    outcomes: Mapping[str, Outcome],
    residents: tuple[str, ...],
) -> Iterator[Diagnostic]:
    where = scene.where
    final = {name: sizes_of(model.memory.total, model.placement) for name, model in scene.placed.items()}
    smallest = {name: _smallest(scene.facts[name], model) for name, model in scene.placed.items()}
    groups = tuple(rules.check_groups(loaded, where, outcomes, smallest))
    yield from groups
    yield from rules.check_sleepers(loaded, where, scene.placed)
    yield from resident_rules.check_divisions(loaded, where)
    if not groups:
        kept = tuple(resident_rules.check(scene, residents))
        yield from kept or rules.check_residents(loaded, where, residents, final)


def _smallest(facts: Facts, model: PlannedModel) -> Sizes:
    spot = model.placement
    return sizes_of(least(facts, spot.kind, len(spot.slots)).total, spot)


def _policy(loaded: Loaded, where: Ground, kept: tuple[str, ...]) -> Policy:
    in_turn = rules.in_turn(loaded, where.name, kept)
    return Policy(
        where.profile.strategy,
        where.at_once,
        where.profile.host_memory,
        kept,
        in_turn,
        loaded.stack.defaults.health_check_interval,
    )


def _leases(loaded: Loaded) -> Leases:
    ours = loaded.stack.leases
    return Leases(ours.mode, ours.ttl, ours.queue_wait, ours.min_residency, ours.max_overtakes)


def _plan(draft: Draft, prompts: Bundle, out: str) -> Plan:
    scene, where = draft.act.scene, draft.act.scene.where
    loaded = scene.loaded
    plan = Plan(
        stack=loaded.stack.name,
        profile=where.name,
        devices=where.devices,
        policy=_policy(loaded, where, draft.residents),
        models=tuple(scene.placed.values()),
        unplaced=tuple(scene.unplaced.values()),
        roles=draft.act.tables.roles,
        proxy=proxy(loaded, where.name, out),
        bundle=prompts,
        roots=root_dirs(loaded.stack.roots),
        options=options(loaded),
        stop_wait_s=STOP_WAIT_S,
        inputs=dict(sorted(loaded.inputs.items())),
        out=out,
        hash="",
        residents=resident_rules.derive(scene, draft.residents),
        leases=_leases(loaded),
    )
    return replace(plan, hash=digest(plan))
