"""Which models have to have room beside which, on one profile.

Owns the companions of a model: those that are always there (residents), those of its groups, and as many others
as may be loaded at once, the largest that fit. Sizes are bytes per pool, in whole MiB as the runtime counts them;
a pool is a GPU slot or the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from imageworks.plan.ir import MIB, Placement
from imageworks.plan.placement import Ground, whole_mib
from imageworks.values import dataclass

HOST = -1
"""The pool of the models on the CPU."""

Sizes = Mapping[int, int]
"""Bytes in each pool."""


@dataclass(frozen=True, slots=True)
class Pools:
    """The room of each pool of a profile."""

    room: Mapping[int, int]

    def left(self, used: Iterable[Sizes]) -> Mapping[int, int]:
        """What remains of each pool beside `used`."""
        left = dict(self.room)
        for sizes in used:
            for pool, size in sizes.items():
                left[pool] -= size
        return left


def pools(where: Ground) -> Pools:
    """The pools of a profile: the budget of each GPU, and host_memory."""
    room = {device.slot: device.budget for device in where.devices} | {HOST: where.profile.host_memory}
    return Pools({pool: size // MIB * MIB for pool, size in room.items()})


def sizes_of(total: int, placement: Placement) -> Sizes:
    """The share of a need of `total` bytes in each pool; empty for a remote model."""
    if placement.kind == "remote":
        return {}
    slots = placement.slots if placement.kind == "gpu" else (HOST,)
    return dict.fromkeys(slots, whole_mib(total, len(slots)))


def fits(sizes: Sizes, left: Mapping[int, int]) -> bool:
    """True when every share of a model finds room."""
    return all(size <= left[pool] for pool, size in sizes.items())


@dataclass(frozen=True, slots=True)
class Company:
    """Who stands beside a model: `always` (residents and group members), `chosen` (the largest others that fit)."""

    always: tuple[str, ...]
    chosen: tuple[str, ...]


def largest_first(sizes: Mapping[str, Sizes]) -> dict[str, Sizes]:
    """The same sizes in the order in which `company` looks at them; equal ones by name."""
    return dict(sorted(sizes.items(), key=lambda item: (-sum(item[1].values()), item[0])))


def company(
    model_id: str,
    always: Sequence[str],
    sizes: Mapping[str, Sizes],
    room: Pools,
    at_once: int,
) -> Company:
    """The companions of `model_id` among the placed models `sizes` (their smallest needs, `largest_first`).

    Only models of the same kind of place count: on GPUs those on GPUs, on the host those on the host.
    """
    on_host = HOST in sizes[model_id]
    fixed = tuple(name for name in always if name in sizes and (HOST in sizes[name]) == on_host)
    left = dict(room.left([sizes[model_id], *(sizes[name] for name in fixed)]))
    chosen: list[str] = []
    for name, size in sizes.items():
        if len(fixed) + len(chosen) + 1 >= at_once:
            break
        if name != model_id and name not in fixed and (HOST in size) == on_host and fits(size, left):
            chosen.append(name)
            left = {pool: rest - size.get(pool, 0) for pool, rest in left.items()}
    return Company(fixed, tuple(chosen))
