"""What has to be loaded together on a profile, and what is said when it cannot be.

Owns IW418 (models that are kept do not fit together, or leave a group no room) and IW419 (two groups that divide the
same memory). The derivation itself is in `residents`; the groups' own sums are IW411.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from imageworks.diagnostics.model import Diagnostic, Fix, Label, Shortfall, Unit
from imageworks.model.loaded import Loaded, Path
from imageworks.plan import apart, shortfalls
from imageworks.plan.allocation import divisions
from imageworks.plan.company import HOST, Pools, Sizes, pools, sizes_of
from imageworks.plan.ir import Refusal, Residents
from imageworks.plan.placement import Ground
from imageworks.plan.residents import Table, residents, violation
from imageworks.plan.roles import Scene
from imageworks.plan.rules import groups_of, label
from imageworks.plan.text import joined


def table(scene: Scene) -> Table:
    """The placed models of a profile as they will be loaded."""
    sizes: dict[str, Sizes] = {
        name: sizes_of(model.memory.total, model.placement)
        for name, model in scene.placed.items()
        if model.placement.kind != "remote"
    }
    both = (pair for pair in apart.pairs(scene.loaded.stack) if set(pair) <= sizes.keys())
    room = dict(pools(scene.where).room)
    for number, pair in enumerate(both, start=1):
        room[HOST - number] = 1
        sizes |= {name: {**sizes[name], HOST - number: 1} for name in pair}
    return Table(sizes, Pools(room), scene.where.at_once, counted_on_host=not scene.where.devices)


def derive(scene: Scene, kept: Sequence[str]) -> Residents:
    """What may be loaded together on a profile without findings."""
    return residents(table(scene), kept)


def check(scene: Scene, kept: Sequence[str]) -> Iterator[Diagnostic]:
    """The proof for what is kept, and for each group beside it; the first set that fails is enough."""
    loaded, where, models = scene.loaded, scene.where, table(scene)
    broken = violation(models, kept)
    if broken is not None:
        pinned = [name for name in kept if loaded.stack.models[name].keep == "pinned"]
        path: Path = ("models", pinned[0], "keep") if pinned else ("profiles", where.name, "strategy")
        message = f"{joined(broken.models)} are kept loaded on {where.name}, and do not fit together"
        yield _finding(scene, message, path, broken)
        return
    for name, members in groups_of(loaded, where.name).items():
        beside = violation(models, sorted({*kept, *members}))
        if beside is not None:
            message = f"group {name} does not fit {where.name} beside what is kept loaded"
            yield _finding(scene, message, ("groups", name, "profiles"), beside)


def _finding(scene: Scene, message: str, path: Path, broken: Refusal) -> Diagnostic:
    sums = tuple(_sums(scene, broken))
    told = shortfalls.told(sums[0]) if sums and sums[0].unit is Unit.BYTES else broken.reason
    return Diagnostic(
        "IW418",
        message,
        label(scene.loaded, path, told),
        notes=(f"the smallest set that does not fit: {joined(broken.models)}",),
        fixes=(Fix("keep: grace"), Fix("a smaller group"), Fix("more room: headroom, max_concurrent_models")),
        sums=sums,
    )


def _sums(scene: Scene, broken: Refusal) -> Iterator[Shortfall]:
    """The pools in which `broken` is too much, else the number; none for two that a person keeps apart."""
    models, apart_only = table(scene), False
    for pool, room in models.room.room.items():
        parts = {name: models.sizes[name][pool] for name in broken.models if pool in models.sizes[name]}
        if sum(parts.values()) <= room:
            continue
        if pool < HOST:
            apart_only = True
            continue
        yield shortfalls.of_group(scene.loaded, scene.where, pool, parts)
        return
    if not apart_only:
        yield shortfalls.of_number(scene.loaded, scene.where, broken.models)


def check_divisions(loaded: Loaded, where: Ground) -> Iterator[Diagnostic]:
    """IW419 for a second group that divides the memory of a profile."""
    first, *others = [item.group for item in divisions(loaded.stack, where.name)] or [""]
    for other in others:
        there = loaded.value("groups", first, "allocation")
        yield Diagnostic(
            "IW419",
            f"groups {first} and {other} both divide the memory of {where.name}",
            label(loaded, ("groups", other, "allocation"), "divides it again"),
            secondary=(Label(there, "divides it already"),) if there else (),
            fixes=(Fix("allocation: custom in one of them"), Fix(f"drop {where.name} from the profiles of one")),
            sums=(shortfalls.of_divisions(loaded, where, (first, other)),),
        )
