"""Which profile a machine gets: the two steps of language.md 3.1.

Owns the pure rule: an exact match (one that lists its devices before one that counts GPUs), else the profile with
the largest planned memory that the machine can hold on some of its GPUs. Looks at no hardware: `FoundGpu` values
come from NVML through the command layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from imageworks.model.stack import DeviceMatch, Match, Profile
from imageworks.plan.assignment import assign
from imageworks.plan.ir import MIB
from imageworks.plan.text import gib, plural
from imageworks.values import dataclass

ADD = "imageworks profile add --from-this-machine"
_MIG = re.compile(r"\bMIG ([1-7]g\.[0-9]+gb)")


@dataclass(frozen=True, slots=True)
class FoundGpu:
    """A GPU (or MIG slice) of the machine: NVML's total in bytes and the compute capability."""

    uuid: str
    name: str
    total_bytes: int
    compute: tuple[int, int]
    mig: bool = False

    @property
    def mig_profile(self) -> str | None:
        """`3g.40gb` of a slice, as the driver's name for it ends; None for a whole card."""
        named = _MIG.search(self.name)
        return named[1] if self.mig and named else None


@dataclass(frozen=True, slots=True)
class Choice:
    """The profile ("" when none can run), how it was found, the GPU of each of its slots, and why, one line each."""

    profile: str
    how: Literal["match", "fits under", "none"]
    gpu_indexes: tuple[int, ...]
    explanation: tuple[str, ...]


def choose(profiles: Mapping[str, Profile], gpus: Sequence[FoundGpu]) -> Choice:
    """The profile for a machine with `gpus`; their order does not matter for the profile."""
    seen = tuple(f"found: {_words(gpu)}" for gpu in gpus) or ("found: no GPU",)
    for name in sorted(profiles, key=lambda name: (not profiles[name].match.devices, name)):
        wanted = profiles[name].match
        indexes = _held(wanted, gpus, exact=True) if len(wanted.slots) == len(gpus) else None
        if indexes is not None:
            line = f"{name} matches: {_demand(wanted)}"
            return Choice(name, "match", indexes, (*seen, line, *_unused(profiles[name], gpus, indexes)))
    return _fits_under(profiles, gpus, seen)


def _fits_under(profiles: Mapping[str, Profile], gpus: Sequence[FoundGpu], seen: tuple[str, ...]) -> Choice:
    held = {name: _held(profiles[name].match, gpus, exact=False) for name in sorted(profiles)}
    holding = {name: indexes for name, indexes in held.items() if indexes is not None}
    if not holding:
        return Choice("", "none", (), (*seen, "no profile can run here, and none is for a machine without a GPU"))
    best = max(holding, key=lambda name: (planned(profiles[name]), -len(holding[name])))
    lines = (
        "no profile matches exactly",
        f"{best} fits under: {_demand(profiles[best].match)}, {gib(planned(profiles[best]))} GiB planned, the most this machine can hold",
        *_unused(profiles[best], gpus, holding[best]),
    )
    return Choice(best, "fits under", holding[best], (*seen, *lines))


def planned(profile: Profile) -> int:
    """Bytes that a profile plans with: the sum over its GPUs of the lower end of vram less the headroom."""
    return sum(max(0, slot.floor - profile.headroom) for slot in profile.match.slots)


def _held(wanted: Match, gpus: Sequence[FoundGpu], *, exact: bool) -> tuple[int, ...] | None:
    """The GPU of each slot, the largest that will do; None when there are not enough.

    Without `exact` the upper end of the memory does not count. Slots that are alike are filled in the order of the GPUs.
    """
    order = sorted(range(len(gpus)), key=lambda index: (-gpus[index].total_bytes, index))
    slots = wanted.slots
    choices = [[index for index in order if _serves(slot, gpus[index], wanted, exact=exact)] for slot in slots]
    found = assign(choices)
    return found if found is None or wanted.devices else tuple(sorted(found))


def _serves(slot: DeviceMatch, gpu: FoundGpu, wanted: Match, *, exact: bool) -> bool:
    return _is_kind(slot, gpu, wanted) and _has_memory(slot, gpu, exact=exact) and _has_compute(slot, gpu)


def _is_kind(slot: DeviceMatch, gpu: FoundGpu, wanted: Match) -> bool:
    """A MIG slice serves where it is asked for by name, and one-GPU profiles: no tensor parallelism across slices."""
    if slot.mig is not None:
        return gpu.mig_profile == slot.mig
    return not gpu.mig or (not wanted.devices and len(wanted.slots) == 1)


def _has_memory(slot: DeviceMatch, gpu: FoundGpu, *, exact: bool) -> bool:
    high = None if slot.vram is None else slot.vram.high
    return gpu.total_bytes >= slot.floor and (not exact or high is None or gpu.total_bytes < high)


def _has_compute(slot: DeviceMatch, gpu: FoundGpu) -> bool:
    bounds = slot.compute
    return bounds is None or (gpu.compute >= bounds.low and (bounds.high is None or gpu.compute < bounds.high))


def _words(gpu: FoundGpu) -> str:
    kind = ", a MIG slice" if gpu.mig else ""
    return f"{gpu.name}, {gpu.total_bytes // MIB} MiB ({gib(gpu.total_bytes)} GiB), compute {gpu.compute[0]}.{gpu.compute[1]}{kind}"


def _demand(wanted: Match) -> str:
    slots = wanted.slots
    if not slots:
        return "no GPU needed"
    if wanted.devices:
        return " and ".join(", ".join(_parts(slot, "one GPU")) for slot in slots)
    return ", ".join(_parts(slots[0], plural(len(slots), "GPU")))


def _parts(slot: DeviceMatch, what: str) -> Iterator[str]:
    yield what if slot.mig is None else f"a MIG slice {slot.mig}"
    if slot.vram is not None:
        upper = "" if slot.vram.high is None else f" to below {gib(slot.vram.high)}"
        yield f"from {gib(slot.vram.low)}{upper} GiB"
    if slot.compute is not None:
        yield f"compute {slot.compute.low[0]}.{slot.compute.low[1]} or more"


def _unused(profile: Profile, gpus: Sequence[FoundGpu], used: Sequence[int]) -> Iterator[str]:
    """What this machine has beyond the plan, and the command that plans with it."""
    lines: list[str] = []
    for slot, index in zip(profile.match.slots, used, strict=True):
        spare = gpus[index].total_bytes - slot.floor
        if slot.floor and spare * 10 > slot.floor:
            lines.append(f"{gib(spare)} GiB of {gpus[index].name} are beyond what {_for(profile)} plans with")
    idle = [gpu.name for index, gpu in enumerate(gpus) if index not in used]
    if idle:
        lines.append(f"unused: {', '.join(idle)}")
    yield from lines
    if lines:
        yield f"to plan with exactly these devices: {ADD}"


def _for(profile: Profile) -> str:
    return f"a profile for {plural(len(profile.match.slots), 'GPU')}"
