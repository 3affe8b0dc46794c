"""How a group with `allocation: balanced` or `priority` divides memory among its members.

Owns the rule (docs/decisions/074): shares by weight of what the group's companions leave, none below what the model
needs. Sizes are bytes and whole MiB, the unit in which the runtime keeps its books.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from imageworks.model.stack import Stack
from imageworks.plan.company import HOST, Sizes, company, pools
from imageworks.plan.ir import MIB
from imageworks.plan.placement import Ground
from imageworks.values import dataclass


@dataclass(frozen=True, slots=True)
class Division:
    """The group of a profile whose memory is divided, with the weight of each member."""

    group: str
    allocation: str
    weights: Mapping[str, int]


def divisions(stack: Stack, profile: str) -> tuple[Division, ...]:
    """The groups of `profile` that divide memory, by name; more than one is IW419."""
    return tuple(
        Division(name, group.allocation, {member: _weight(stack, member, group.allocation) for member in group.models})
        for name, group in sorted(stack.groups.items())
        if profile in group.profiles and group.allocation != "custom"
    )


def _weight(stack: Stack, model_id: str, allocation: str) -> int:
    """1 for `balanced`; for `priority` the highest priority in any role, at least 1."""
    return 1 if allocation == "balanced" else max([1, *stack.models[model_id].roles.values()])


def divide(room: int, weights: Mapping[str, int], least: Mapping[str, int]) -> Mapping[str, int]:
    """Shares of `room` in proportion to `weights`, in whole MiB; a model whose share is below its least gets its least.

    The others then divide the rest, so the sum exceeds `room` only where the sum of `least` does.

    >>> {name: size >> 20 for name, size in divide(90000 << 20, {"a": 2, "b": 1}, {"a": 0, "b": 0}).items()}
    {'a': 60000, 'b': 30000}
    """
    fixed: dict[str, int] = {}
    while True:
        rest = max(0, room - sum(fixed.values()))
        sharing = {name: weight for name, weight in weights.items() if name not in fixed}
        total = sum(sharing.values())
        short = {name: least[name] for name, weight in sharing.items() if least[name] * total > rest * weight}
        if not short:
            return fixed | {name: rest * weight // (total * MIB) * MIB for name, weight in sharing.items()}
        fixed |= short


def shares(
    division: Division, members: Sequence[str], outside: Sequence[str], sizes: Mapping[str, Sizes], where: Ground
) -> Mapping[str, int]:
    """Bytes over all its GPUs for each of `members`, which are placed and take room.

    Divided is, in each pool, the room beside `outside` (models that are always there) and beside the largest others
    that may be loaded too. A model that is split over GPUs gets the same on each, so the tightest of them decides.
    """
    room = pools(where)
    beside = set(outside)
    for on_host in (False, True):
        kind = [name for name in members if (HOST in sizes[name]) == on_host]
        if kind:
            others = (*(name for name in members if name != kind[0]), *outside)
            beside |= set(company(kind[0], others, sizes, room, where.at_once).chosen)
    left = room.left(sizes[name] for name in beside if name in sizes)
    parts: dict[str, list[int]] = {name: [] for name in members}
    for pool, usable in left.items():
        least = {name: sizes[name][pool] for name in members if pool in sizes[name]}
        for name, share in divide(usable, {name: division.weights[name] for name in least}, least).items():
            parts[name].append(share)
    return {name: min(each) * len(each) for name, each in parts.items()}
