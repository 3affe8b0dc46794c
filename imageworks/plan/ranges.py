"""Contexts and concurrencies of the placed models of one profile: `{at_least, up_to}` solved into numbers.

Owns the rule (docs/decisions/011): a model grows only into what is left beside its companions, or into its share of
a group that divides memory (docs/decisions/074); context first, then concurrency. Residents are solved first, then
the members of such a group, each against the final sizes of those before; then the others.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from imageworks.plan.allocation import Division, shares
from imageworks.plan.company import HOST, Company, Pools, Sizes, company, largest_first, pools, sizes_of
from imageworks.plan.facts import Facts, Range
from imageworks.plan.ir import MIB, Placement
from imageworks.plan.placement import Ground, least
from imageworks.plan.text import gib
from imageworks.plan.vram import Shape, memory
from imageworks.values import dataclass

STEP = 256
"""Tokens to which a solved context is rounded down."""


@dataclass(frozen=True, slots=True)
class Solved:
    """The shape of a placed model and the reasons of its two numbers."""

    shape: Shape
    context_why: str
    concurrency_why: str


@dataclass(frozen=True, slots=True)
class Table:
    """The placed models of a profile: what each is, where it is, and who must stay loaded beside it."""

    facts: Mapping[str, Facts]
    placements: Mapping[str, Placement]
    groups: Sequence[frozenset[str]]
    residents: Sequence[str]
    division: Division | None = None

    @property
    def sharing(self) -> tuple[str, ...]:
        """Placed members of the group that divides memory; none is remote."""
        names = self.division.weights if self.division else {}
        return tuple(name for name, spot in self.placements.items() if name in names and spot.kind != "remote")

    def always(self, model_id: str) -> tuple[str, ...]:
        """Models that have to have room beside `model_id` whatever else is loaded."""
        peers = {name for group in self.groups if model_id in group for name in group}
        return tuple(sorted((peers | set(self.residents)) & set(self.placements) - {model_id}))


def solve(table: Table, where: Ground) -> Mapping[str, Solved]:
    """The final shape of every placed model."""
    sizes: dict[str, Sizes] = {
        model_id: sizes_of(least(table.facts[model_id], spot.kind, len(spot.slots)).total, spot)
        for model_id, spot in table.placements.items()
        if spot.kind != "remote"
    }
    solved: dict[str, Solved] = {}
    sharing = table.sharing
    first = [name for name in table.placements if name in table.residents and name not in sharing]
    rest = [name for name in table.placements if name not in table.residents and name not in sharing]
    for phase in (first, sharing, rest):
        ranked, final = largest_first(sizes), frozenset(solved)
        if phase is sharing and table.division is not None:
            done = _divided(table, table.division, ranked, where)
        else:
            done = {name: _solve(table, name, ranked, where=where, final=final) for name in phase}
        solved |= done
        for name, item in done.items():
            if name in sizes:
                sizes[name] = sizes_of(memory(table.facts[name], item.shape).total, table.placements[name])
    return solved


def _solve(table: Table, model_id: str, sizes: Mapping[str, Sizes], *, where: Ground, final: frozenset[str]) -> Solved:
    facts, spot = table.facts[model_id], table.placements[model_id]
    lowest = Shape(spot.kind, len(spot.slots), facts.context.low, facts.concurrency.low)
    if not facts.context.is_open and not facts.concurrency.is_open:
        return Solved(lowest, facts.context.why, facts.concurrency.why)
    if spot.kind == "remote":
        return Solved(lowest, f"{facts.context.why}; remote: the lower end", f"{facts.concurrency.why}; the lower end")
    if facts.total is not None or facts.kv is not None or not facts.keeps_kv:
        return _without_price(facts, lowest)
    room = pools(where)
    beside = company(model_id, table.always(model_id), sizes, room, where.at_once)
    sharers = _sharers(table, beside, final)
    left = _left(model_id, beside, sizes, room)
    return _grow(facts, lowest, left.bytes // (sharers + 1), left.words(beside, sizes, sharers))


def _divided(table: Table, division: Division, sizes: Mapping[str, Sizes], where: Ground) -> dict[str, Solved]:
    """The members of the group that divides memory, each grown into its share."""
    members = table.sharing
    outside = {other for name in members for other in table.always(name)} - set(members)
    given = shares(division, members, sorted(outside), sizes, where)
    return {name: _into_share(table, division, name, given[name], sizes[name]) for name in members}


def _into_share(table: Table, division: Division, model_id: str, share: int, own: Sizes) -> Solved:
    facts, spot = table.facts[model_id], table.placements[model_id]
    lowest = Shape(spot.kind, len(spot.slots), facts.context.low, facts.concurrency.low)
    reason = f"{gib(share)} GiB are its share of group {division.group} ({division.allocation})"
    if not facts.context.is_open and not facts.concurrency.is_open:
        solved = Solved(lowest, facts.context.why, facts.concurrency.why)
    elif facts.total is not None or facts.kv is not None or not facts.keeps_kv:
        solved = _without_price(facts, lowest)
    else:
        solved = _grow(facts, lowest, share - sum(own.values()), reason)
    return replace(solved, shape=replace(solved.shape, share=share))


def _without_price(facts: Facts, lowest: Shape) -> Solved:
    reason = "at_least: no cost of a token is known here"
    if facts.total is not None or facts.kv is not None:
        reason = f"at_least: vram.{'total' if facts.total else 'kv'} is declared, so a longer one would not be counted"
    return Solved(lowest, reason, reason)


def _sharers(table: Table, beside: Company, final: frozenset[str]) -> int:
    """Companions that are solved in the same phase and may grow too."""
    growing = [table.facts[name] for name in beside.always if name not in final]
    return sum(1 for item in growing if item.context.is_open or item.concurrency.is_open)


@dataclass(frozen=True, slots=True)
class Left:
    """The tightest pool of a model: its room, the model's own least share, and what all its pools leave free."""

    pool: int
    usable: int
    own: int
    bytes: int

    def words(self, beside: Company, sizes: Mapping[str, Sizes], sharers: int) -> str:
        """The subtraction in GiB, with the companions that stand in the same pool."""
        near = {name: sizes[name][self.pool] for name in (*beside.always, *beside.chosen) if self.pool in sizes[name]}
        parts = [f"{gib(self.usable)} usable - {gib(self.own)} at the least"]
        parts += [f"{gib(size)} for {name}" for name, size in near.items()]
        each = "" if self.pool == HOST else f" on GPU {self.pool}"
        share = f", shared equally by {sharers + 1} that may grow" if sharers else ""
        return f"{' - '.join(parts)} = {gib(self.usable - self.own - sum(near.values()))} GiB left{each}{share}"


def _left(model_id: str, beside: Company, sizes: Mapping[str, Sizes], room: Pools) -> Left:
    own = sizes[model_id]
    left = room.left([own, *(sizes[name] for name in (*beside.always, *beside.chosen))])
    tightest = min(own, key=lambda pool: (left[pool], pool))
    return Left(tightest, room.room[tightest], own[tightest], max(0, left[tightest]) * len(own))


def _grow(facts: Facts, lowest: Shape, extra: int, room: str) -> Solved:
    allowance = _rounded_need(facts, lowest) + extra
    context = _largest(
        facts.context, lambda value: _rounded_need(facts, replace(lowest, context=value)) <= allowance, STEP
    )
    grown = replace(lowest, context=context)
    many = _largest(
        facts.concurrency, lambda value: _rounded_need(facts, replace(grown, concurrency=value)) <= allowance, 1
    )
    return Solved(
        replace(grown, concurrency=many),
        _why(facts.context, context, room, f"multiple of {STEP}"),
        _why(facts.concurrency, many, f"{room}, context first", "number"),
    )


def _rounded_need(facts: Facts, shape: Shape) -> int:
    parts = max(1, shape.gpus)
    return -(-memory(facts, shape).total // (parts * MIB)) * MIB * parts


def _largest(wanted: Range, fits: Callable[[int], bool], step: int) -> int:
    """The largest multiple of `step` (or end of the range) for which `fits` holds; it holds for the lower end."""
    if fits(wanted.high):
        return wanted.high
    between = range((wanted.low // step + 1) * step, wanted.high, step)
    count = bisect_left(between, 1, key=lambda value: int(not fits(value)))
    return between[count - 1] if count else wanted.low


def _why(wanted: Range, chosen: int, room: str, unit: str) -> str:
    if not wanted.is_open:
        return wanted.why
    span = f"{wanted.why} {wanted.low} to {wanted.high}"
    if chosen == wanted.high:
        return f"{span}: all of it fits; {room}"
    if chosen == wanted.low:
        return f"{span}: the least; {room}"
    return f"{span}: the largest {unit} that fits; {room}"
