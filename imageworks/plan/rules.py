"""What a profile and its groups must not ask for.

Owns IW403 (one at a time, yet several), IW404 (a split that cannot happen), IW405 (vLLM on the CPU), IW406 (a
resident that shuts out another model), IW407 (GPUs of unknown size) and IW411 (a group that does not fit).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from imageworks.diagnostics.model import Diagnostic, Fix, Label
from imageworks.model.loaded import Loaded, Path
from imageworks.plan.company import HOST, Sizes, fits, pools
from imageworks.plan.ir import Unplaced
from imageworks.plan.placement import SPLITTING, Ground, Outcome
from imageworks.plan.text import gib_needed, gib_usable, joined, plural

FULL = "concurrent_full"


def label(loaded: Loaded, path: Path, text: str) -> Label | None:
    """The value at `path`, or its nearest key."""
    span = loaded.value(*path)
    return Label(span, text) if span else None


def check_profile(loaded: Loaded, name: str) -> Iterator[Diagnostic]:
    """Contradictions inside one profile."""
    profile = loaded.stack.profiles[name]
    path: Path = ("profiles", name)
    if profile.strategy == "load_unload" and profile.max_concurrent_models != 1:
        yield Diagnostic(
            "IW403",
            f"{name} loads one model at a time, yet allows {profile.max_concurrent_models}",
            label(loaded, (*path, "max_concurrent_models"), "load_unload means 1"),
            fixes=(Fix("max_concurrent_models: 1"), Fix("strategy: concurrent_limited")),
        )
    if profile.tensor_parallel_above is not None and (profile.strategy != SPLITTING or profile.match.gpus < 2):  # noqa: PLR2004 - a split needs two
        yield Diagnostic(
            "IW404",
            f"{name} never splits a model",
            label(loaded, (*path, "tensor_parallel_above"), "has no effect here"),
            notes=(f"it has {plural(profile.match.gpus, 'GPU')} and strategy {profile.strategy}",),
            fixes=(Fix("remove the line"), Fix(f"strategy: {SPLITTING} on a profile with two GPUs or more")),
        )
    if profile.match.gpus > 0 and (profile.match.vram is None or profile.match.vram.low <= profile.headroom):
        yield Diagnostic(
            "IW407",
            f"{name} leaves no GPU memory to plan with",
            label(loaded, (*path, "match", "vram"), "the lower end is what the plan may use"),
            notes=(f"lower end of match.vram less headroom {gib_usable(profile.headroom)} GiB is nothing",),
            fixes=(Fix('match: {vram: ">=…GiB"} above the headroom'),),
        )


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


def residents_of(loaded: Loaded, where: Ground, outcomes: Mapping[str, Outcome]) -> tuple[str, ...]:
    """Placed models that are started at once and kept: pinned ones, and groups where the strategy is concurrent_full."""
    kept = {name for name, model in loaded.stack.models.items() if model.keep == "pinned"}
    if where.profile.strategy == FULL:
        kept |= {name for members in groups_of(loaded, where.name).values() for name in members}
    return tuple(sorted(name for name in kept if _takes_room(outcomes[name])))


def _takes_room(outcome: Outcome) -> bool:
    return not isinstance(outcome, Unplaced) and outcome.kind != "remote"


def check_groups(
    loaded: Loaded, where: Ground, outcomes: Mapping[str, Outcome], least: Mapping[str, Sizes]
) -> Iterator[Diagnostic]:
    """IW411 for each group of this profile that cannot be loaded together. `least`: smallest needs of placed models."""
    for group, members in groups_of(loaded, where.name).items():
        reasons = [*_absent(members, outcomes), *_too_large(members, where, least), *_too_many(members, where, least)]
        if reasons:
            index = loaded.stack.groups[group].profiles.index(where.name)
            place = label(loaded, ("groups", group, "profiles", index), "cannot all be loaded here")
            fixes = (Fix("drop models from the group"), Fix(f"drop {where.name} from its profiles"))
            yield Diagnostic(
                "IW411", f"group {group} does not fit {where.name}", place, notes=tuple(reasons), fixes=fixes
            )


def _absent(members: frozenset[str], outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    for name in sorted(members):
        outcome = outcomes[name]
        if isinstance(outcome, Unplaced) and outcome.code != "IW421":
            yield f"{name} is not placed here: {outcome.reason}"


def _too_large(members: frozenset[str], where: Ground, least: Mapping[str, Sizes]) -> Iterator[str]:
    room = pools(where).room
    for pool, usable in sorted(room.items(), reverse=True):
        parts = {name: least[name][pool] for name in sorted(members) if pool in least.get(name, {})}
        total = sum(parts.values())
        if total > usable:
            name = "host_memory" if pool == HOST else f"GPU {pool}"
            terms = " + ".join(f"{member} {gib_needed(size)}" for member, size in parts.items())
            drop = joined(smallest_drop(parts, total - usable))
            yield f"{gib_needed(total)} GiB together, {gib_usable(usable)} usable on {name}: {terms}; smallest set to drop: {drop}"


def smallest_drop(parts: Mapping[str, int], excess: int) -> tuple[str, ...]:
    """The fewest parts whose sum is at least `excess`; of several such sets the one with the least memory."""
    largest = sorted(parts.values(), reverse=True)
    count = next(count for count in range(1, len(largest) + 1) if sum(largest[:count]) >= excess)
    if len(parts) > 16:  # noqa: PLR2004 - beyond it the best set costs too much to look for
        return tuple(sorted(parts, key=lambda name: -parts[name])[:count])
    enough = (names for names in combinations(sorted(parts), count) if sum(parts[name] for name in names) >= excess)
    return min(enough, key=lambda names: sum(parts[name] for name in names))


def _too_many(members: frozenset[str], where: Ground, least: Mapping[str, Sizes]) -> Iterator[str]:
    counted = [name for name in members if name in least and (HOST in least[name]) == (not where.devices)]
    if len(counted) > where.at_once:
        yield f"{where.name} loads at most {where.at_once} at once, the group counts {len(counted)}"


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
