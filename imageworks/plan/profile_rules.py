"""Contradictions inside one hardware profile.

Owns IW403 (one at a time, yet several), IW404 (a split that cannot happen), IW407 (GPUs of unknown size) and IW408
(a match that says no machine, or two). Looks at no model.
"""

from __future__ import annotations

from collections.abc import Iterator

from imageworks.diagnostics.model import Diagnostic, Fix
from imageworks.model.loaded import Loaded, Path
from imageworks.model.stack import Profile
from imageworks.plan.placement import SPLITTING
from imageworks.plan.rules import label
from imageworks.plan.text import gib_usable, plural


def check(loaded: Loaded, name: str) -> Iterator[Diagnostic]:
    """All contradictions of the profile `name`."""
    profile = loaded.stack.profiles[name]
    path: Path = ("profiles", name)
    yield from _match(loaded, path, profile)
    yield from _sizes(loaded, path, profile)
    yield from _split(loaded, path, profile)
    if profile.strategy == "load_unload" and profile.max_concurrent_models != 1:
        yield Diagnostic(
            "IW403",
            f"{name} loads one model at a time, yet allows {profile.max_concurrent_models}",
            label(loaded, (*path, "max_concurrent_models"), "load_unload means 1"),
            fixes=(Fix("max_concurrent_models: 1"), Fix("strategy: concurrent_limited")),
        )


def _match(loaded: Loaded, path: Path, profile: Profile) -> Iterator[Diagnostic]:
    match = profile.match
    equal = [key for key in ("gpus", "vram", "compute") if getattr(match, key) is not None]
    if match.gpus is not None and not match.devices:
        return
    if match.devices and not equal:
        return
    told = f"{' and '.join(equal)} beside devices" if match.devices else "neither gpus nor devices"
    yield Diagnostic(
        "IW408",
        f"{path[1]} does not say which machine it is for",
        label(loaded, (*path, "match"), told),
        notes=("gpus: N with vram and compute is for equal GPUs; devices: […] says it for each",),
        fixes=(Fix("gpus: 1 with a vram range"), Fix('devices: [{vram: ">=…GiB"}, {mig: 3g.40gb}]')),
    )


def _sizes(loaded: Loaded, path: Path, profile: Profile) -> Iterator[Diagnostic]:
    small = [index for index, slot in enumerate(profile.match.slots) if slot.floor <= profile.headroom]
    if small:
        inner = ("devices", small[0]) if profile.match.devices else ()
        yield Diagnostic(
            "IW407",
            f"{path[1]} leaves no GPU memory to plan with",
            label(loaded, (*path, "match", *inner, "vram"), "the lower end is what the plan may use"),
            notes=(f"lower end of match.vram less headroom {gib_usable(profile.headroom)} GiB is nothing",),
            fixes=(Fix('match: {vram: ">=…GiB"} above the headroom'),),
        )


def _split(loaded: Loaded, path: Path, profile: Profile) -> Iterator[Diagnostic]:
    slots = profile.match.slots
    sliced = any(slot.mig for slot in slots)
    if profile.tensor_parallel_above is None or (profile.strategy == SPLITTING and len(slots) > 1 and not sliced):
        return
    reason = f"it has {plural(len(slots), 'GPU')} and strategy {profile.strategy}"
    yield Diagnostic(
        "IW404",
        f"{path[1]} never splits a model",
        label(loaded, (*path, "tensor_parallel_above"), "has no effect here"),
        notes=("no tensor parallelism across MIG slices" if sliced else reason,),
        fixes=(Fix("remove the line"), Fix(f"strategy: {SPLITTING} on a profile with two whole GPUs or more")),
    )
