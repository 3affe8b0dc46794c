"""What a profile and its groups must not ask for.

Owns IW403 (one at a time, yet several), IW404 (a split that cannot happen), IW405 (vLLM on the CPU), IW406 (a
resident that shuts out another model), IW407 (GPUs of unknown size) and IW411 (a group that does not fit).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from imageworks.diagnostics.model import Diagnostic, Fix, Label
from imageworks.model.loaded import BUILT_IN, Loaded, Path
from imageworks.plan import shortfalls
from imageworks.plan.company import HOST, Sizes, fits, pools
from imageworks.plan.ir import PlannedModel, Unplaced
from imageworks.plan.placement import Ground, Outcome
from imageworks.plan.text import gib_needed, gib_usable, joined, plural
from imageworks.values import dataclass

FULL = "concurrent_full"


def label(loaded: Loaded, path: Path, text: str) -> Label | None:
    """The value at `path`, or its nearest key."""
    span = loaded.value(*path)
    return Label(span, text) if span else None


def check_engines(loaded: Loaded) -> Iterator[Diagnostic]:
    """IW405: a place that an engine cannot use on any machine."""
    for name, model in sorted(loaded.stack.models.items()):
        if model.backend == "vllm" and model.placement == "cpu":
            yield Diagnostic(
                "IW405",
                f"{name} cannot run on the CPU",
                label(loaded, ("models", name, "placement"), "vllm needs a GPU"),
                fixes=(Fix("remove the line"), Fix("a GGUF of it with backend: llamacpp")),
            )


def groups_of(loaded: Loaded, profile: str) -> Mapping[str, frozenset[str]]:
    """Members of the groups that name `profile`, by group."""
    return {
        name: frozenset(group.models)
        for name, group in sorted(loaded.stack.groups.items())
        if profile in group.profiles
    }


def is_named(loaded: Loaded, profile: str) -> bool:
    """Does the stack itself declare or adjust `profile`? The others are built in, for machines nobody may have."""
    span = loaded.value("profiles", profile)
    return span is not None and span.file != BUILT_IN


def residents_of(
    loaded: Loaded, where: Ground, outcomes: Mapping[str, Outcome], *, pins: bool = True
) -> tuple[str, ...]:
    """Placed models that are started at once and kept: pinned ones, and groups where the strategy is concurrent_full."""
    kept = {name for name, model in loaded.stack.models.items() if model.keep == "pinned" and pins}
    if where.profile.strategy == FULL:
        kept |= {name for members in groups_of(loaded, where.name).values() for name in members}
    return tuple(sorted(name for name in kept if _takes_room(outcomes[name])))


def in_turn(loaded: Loaded, profile: str, kept: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The residents of each group of `profile` that start one after the other: two or more, by name."""
    groups = groups_of(loaded, profile).items()
    waiting = (
        tuple(sorted(members & set(kept)))
        for name, members in groups
        if loaded.stack.groups[name].startup == "sequential"
    )
    return tuple(names for names in waiting if len(names) > 1)


def _takes_room(outcome: Outcome) -> bool:
    return not isinstance(outcome, Unplaced) and outcome.kind != "remote"


def check_groups(
    loaded: Loaded, where: Ground, outcomes: Mapping[str, Outcome], least: Mapping[str, Sizes]
) -> Iterator[Diagnostic]:
    """IW411 for each group of this profile that cannot be loaded together. `least`: smallest needs of placed models."""
    for group, members in groups_of(loaded, where.name).items():
        large = tuple(_too_large(members, where, least))
        drops = [f"smallest set to drop: {joined(smallest_drop(item.parts, item.excess))}" for item in large]
        reasons = [*_absent(members, outcomes), *drops, *_too_many(members, where, least)]
        if reasons:
            index = loaded.stack.groups[group].profiles.index(where.name)
            sums = tuple(shortfalls.of_group(loaded, where, item.pool, item.parts) for item in large)
            told = next(map(shortfalls.told, sums), "cannot all be loaded here")
            counted = _counted(members, where, least)
            sums += (shortfalls.of_number(loaded, where, counted),) if len(counted) > where.at_once else ()
            yield Diagnostic(
                "IW411",
                f"group {group} does not fit {where.name}",
                label(loaded, ("groups", group, "profiles", index), told),
                notes=tuple(reasons),
                fixes=(Fix("drop models from the group"), Fix(f"drop {where.name} from its profiles")),
                sums=sums,
            )


def _absent(members: frozenset[str], outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    for name in sorted(members):
        outcome = outcomes[name]
        if isinstance(outcome, Unplaced) and outcome.code != "IW421":
            yield f"{name} is not placed here: {outcome.reason}"


@dataclass(frozen=True, slots=True)
class _Overfull:
    """A pool that the parts of a group do not fit into together."""

    pool: int
    parts: Mapping[str, int]
    usable: int

    @property
    def excess(self) -> int:
        return sum(self.parts.values()) - self.usable


def _too_large(members: frozenset[str], where: Ground, least: Mapping[str, Sizes]) -> Iterator[_Overfull]:
    for pool, usable in sorted(pools(where).room.items(), reverse=True):
        parts = {name: least[name][pool] for name in sorted(members) if pool in least.get(name, {})}
        if sum(parts.values()) > usable:
            yield _Overfull(pool, parts, usable)


def smallest_drop(parts: Mapping[str, int], excess: int) -> tuple[str, ...]:
    """The fewest parts whose sum is at least `excess`; of several such sets the one with the least memory."""
    largest = sorted(parts.values(), reverse=True)
    count = next(count for count in range(1, len(largest) + 1) if sum(largest[:count]) >= excess)
    if len(parts) > 16:  # noqa: PLR2004 - beyond it the best set costs too much to look for
        return tuple(sorted(parts, key=lambda name: -parts[name])[:count])
    enough = (names for names in combinations(sorted(parts), count) if sum(parts[name] for name in names) >= excess)
    return min(enough, key=lambda names: sum(parts[name] for name in names))


def _counted(members: frozenset[str], where: Ground, least: Mapping[str, Sizes]) -> Sequence[str]:
    """The members that max_concurrent_models counts."""
    return [name for name in sorted(members) if name in least and (HOST in least[name]) == (not where.devices)]


def _too_many(members: frozenset[str], where: Ground, least: Mapping[str, Sizes]) -> Iterator[str]:
    counted = _counted(members, where, least)
    if len(counted) > where.at_once:
        yield f"{where.name} loads at most {where.at_once} at once, the group counts {len(counted)}"


def check_sleepers(loaded: Loaded, where: Ground, placed: Mapping[str, PlannedModel]) -> Iterator[Diagnostic]:
    """IW412 for models that keep their weights in host memory while they sleep: all of them may sleep at once.

    On a built-in profile that the stack does not speak of the scheduler stops what has no room to sleep.
    """
    asleep = {name: model.asleep_host for name, model in placed.items() if model.asleep_host}
    total, room = sum(asleep.values()), where.profile.host_memory
    if total <= room or not is_named(loaded, where.name):
        return
    name = max(asleep, key=lambda item: (asleep[item], item))
    sums = shortfalls.of_group(loaded, where, HOST, dict(sorted(asleep.items())))
    yield Diagnostic(
        "IW412",
        f"sleeping models do not fit the host memory of {where.name}",
        label(loaded, ("models", name, "sleep"), shortfalls.told(sums)),
        notes=("at level 1 the weights of a sleeping model lie in host_memory, and all may sleep at once",),
        fixes=(Fix("sleep: level2  reads the weights from disk again"), Fix(f"profiles.{where.name}.host_memory")),
        sums=(sums,),
    )


def check_residents(
    loaded: Loaded, where: Ground, residents: Sequence[str], final: Mapping[str, Sizes]
) -> Iterator[Diagnostic]:
    """IW406, once for a profile: residents are never evicted, so all else that is placed must have room beside them."""
    kept = [name for name in residents if name in final]
    left = pools(where).left(final[name] for name in kept)
    shut_out: dict[str, str] = {}
    for name, sizes in final.items():
        beside = [other for other in kept if (HOST in final[other]) == (HOST in sizes)]
        if name in kept or not sizes or not beside:
            continue
        counted = (HOST in sizes) == (not where.devices)
        if counted and len(beside) >= where.at_once:
            shut_out[name] = f"{name}: at most {plural(where.at_once, 'model')} at once, always {joined(beside)}"
        elif not fits(sizes, left):
            free = min(left[pool] for pool in sizes)
            shut_out[name] = (
                f"{name}: needs {gib_needed(max(sizes.values()))} GiB, {gib_usable(free)} are left beside {joined(beside)}"
            )
    if shut_out:
        yield _shut_out(loaded, where, shut_out, kept)


def _shut_out(loaded: Loaded, where: Ground, shut_out: Mapping[str, str], kept: Sequence[str]) -> Diagnostic:
    pinned = next((name for name in kept if loaded.stack.models[name].keep == "pinned"), None)
    path: Path = ("models", pinned, "keep") if pinned else ("profiles", where.name)
    rule = "pinned models, and groups where the strategy is concurrent_full, are never evicted"
    return Diagnostic(
        "IW406",
        f"{joined(shut_out)} can never be loaded on {where.name}",
        label(loaded, path, f"never evicted: {joined(kept)}"),
        notes=(*shut_out.values(), rule),
        fixes=(Fix("keep: grace"), Fix("a smaller group"), Fix("more room: headroom, max_concurrent_models")),
    )
