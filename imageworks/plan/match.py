"""Which profile a machine gets: the two steps of language.md 3.1.

Owns the pure rule: an exact match, else the profile with the largest planned memory that the machine can hold on
some of its GPUs. Looks at no hardware: `FoundGpu` values come from NVML through the command layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from imageworks.model.stack import Match, Profile
from imageworks.plan.ir import MIB
from imageworks.plan.text import gib, plural


@dataclass(frozen=True, slots=True)
class FoundGpu:
    """A GPU (or MIG slice) of the machine: NVML's total in bytes and the compute capability."""

    uuid: str
    name: str
    total_bytes: int
    compute: tuple[int, int]
    mig: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The profile ("" when none can run), how it was found, the GPUs it uses, and why, one line each."""

    profile: str
    how: Literal["match", "fits under", "none"]
    gpu_indexes: tuple[int, ...]
    explanation: tuple[str, ...]


def choose(profiles: Mapping[str, Profile], gpus: Sequence[FoundGpu]) -> Choice:
    """The profile for a machine with `gpus`; their order does not matter for the profile."""
    seen = tuple(f"found: {_words(gpu)}" for gpu in gpus) or ("found: no GPU",)
    for name in sorted(profiles):
        wanted = profiles[name].match
        if wanted.gpus == len(gpus) and len(_holders(wanted, gpus, exact=True)) == len(gpus):
            line = f"{name} matches: {_demand(wanted)}"
            indexes = tuple(range(len(gpus)))
            return Choice(name, "match", indexes, (*seen, line, *_unused(profiles[name], gpus, indexes)))
    return _fits_under(profiles, gpus, seen)


def _fits_under(profiles: Mapping[str, Profile], gpus: Sequence[FoundGpu], seen: tuple[str, ...]) -> Choice:
    holding = [name for name in sorted(profiles) if _can_hold(profiles[name].match, gpus)]
    if not holding:
        return Choice("", "none", (), (*seen, "no profile can run here, and none is for a machine without a GPU"))
    best = max(holding, key=lambda name: (planned(profiles[name]), -profiles[name].match.gpus))
    wanted = profiles[best].match
    indexes = _largest(_holders(wanted, gpus, exact=False), gpus, wanted.gpus)
    lines = (
        "no profile matches exactly",
        f"{best} fits under: {_demand(wanted)}, {gib(planned(profiles[best]))} GiB planned, the most this machine can hold",
        *_unused(profiles[best], gpus, indexes),
    )
    return Choice(best, "fits under", indexes, (*seen, *lines))


def planned(profile: Profile) -> int:
    """Bytes that a profile plans with: GPUs x (lower end of vram - headroom)."""
    low = profile.match.vram.low if profile.match.vram else 0
    return profile.match.gpus * max(0, low - profile.headroom)


def _can_hold(wanted: Match, gpus: Sequence[FoundGpu]) -> bool:
    return len(_holders(wanted, gpus, exact=False)) >= wanted.gpus


def _holders(wanted: Match, gpus: Sequence[FoundGpu], *, exact: bool) -> tuple[int, ...]:
    """Indexes of the GPUs that fulfil `wanted`; without `exact` the upper end of the memory does not count.

    A MIG slice serves one-GPU profiles only: there is no tensor parallelism across slices.
    """
    return tuple(
        index
        for index, gpu in enumerate(gpus)
        if (wanted.gpus <= 1 or not gpu.mig) and _has_memory(wanted, gpu, exact=exact) and _has_compute(wanted, gpu)
    )


def _has_memory(wanted: Match, gpu: FoundGpu, *, exact: bool) -> bool:
    bounds = wanted.vram
    if bounds is None:
        return True
    below = bounds.high is None or gpu.total_bytes < bounds.high
    return gpu.total_bytes >= bounds.low and (below or not exact)


def _has_compute(wanted: Match, gpu: FoundGpu) -> bool:
    bounds = wanted.compute
    return bounds is None or (gpu.compute >= bounds.low and (bounds.high is None or gpu.compute < bounds.high))


def _largest(indexes: Sequence[int], gpus: Sequence[FoundGpu], count: int) -> tuple[int, ...]:
    """The `count` largest of `indexes`, in slot order; of equals the first."""
    return tuple(sorted(sorted(indexes, key=lambda index: (-gpus[index].total_bytes, index))[:count]))


def _words(gpu: FoundGpu) -> str:
    kind = ", a MIG slice" if gpu.mig else ""
    return f"{gpu.name}, {gpu.total_bytes // MIB} MiB ({gib(gpu.total_bytes)} GiB), compute {gpu.compute[0]}.{gpu.compute[1]}{kind}"


def _demand(wanted: Match) -> str:
    if wanted.gpus == 0:
        return "no GPU needed"
    parts = [plural(wanted.gpus, "GPU")]
    if wanted.vram is not None:
        upper = "" if wanted.vram.high is None else f" to below {gib(wanted.vram.high)}"
        parts.append(f"from {gib(wanted.vram.low)}{upper} GiB")
    if wanted.compute is not None:
        parts.append(f"compute {wanted.compute.low[0]}.{wanted.compute.low[1]} or more")
    return ", ".join(parts)


def _unused(profile: Profile, gpus: Sequence[FoundGpu], used: Sequence[int]) -> Iterator[str]:
    low = profile.match.vram.low if profile.match.vram else 0
    for index in used:
        spare = gpus[index].total_bytes - low
        if low and spare * 10 > low:
            yield f"{gib(spare)} GiB of {gpus[index].name} are beyond what {_for(profile)} plans with"
    idle = [gpu.name for index, gpu in enumerate(gpus) if index not in used]
    if idle:
        yield f"unused: {', '.join(idle)}"


def _for(profile: Profile) -> str:
    return f"a profile for {plural(profile.match.gpus, 'GPU')}"
