"""A profile for exactly the devices of one machine, as lines of stack.yaml.

Owns what such a profile takes over from the one that the machine would otherwise get, and what has to differ where
there are more devices. Pure: whoever calls has looked at the hardware, and writes the text somewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_FLOOR, Decimal

from imageworks.model.stack import Profile
from imageworks.plan.ir import GIB
from imageworks.plan.match import FoundGpu
from imageworks.plan.placement import SPLITTING
from imageworks.plan.text import size_word


def own_profile(name: str, gpus: Sequence[FoundGpu], base: Profile) -> str:
    """The text of `profiles: {name: …}` for `gpus` (at least one), with the settings of `base`."""
    lines = [f"    {key}: {value}" for key, value in _settings(gpus, base)]
    return "\n".join(("profiles:", f"  {name}:", *_match(gpus), *lines, ""))


def _match(gpus: Sequence[FoundGpu]) -> Iterator[str]:
    yield "    match:"
    yield "      devices:"
    for gpu in gpus:
        kind = f"mig: {gpu.mig_profile}, " if gpu.mig_profile else ""
        low = f"{gpu.compute[0]}.{gpu.compute[1]}"
        yield f'        - {{{kind}vram: ">={_floor(gpu.total_bytes)}", compute: ">={low}"}}  # {gpu.name}'


def _floor(size: int) -> str:
    """A tenth of a GiB below what NVML says: its total changes by some MiB from driver to driver."""
    return f"{(Decimal(size) / GIB).quantize(Decimal('0.1'), rounding=ROUND_FLOOR)}GiB"


def _settings(gpus: Sequence[FoundGpu], base: Profile) -> Iterator[tuple[str, str]]:
    headroom = base.headroom if base.match.slots else Profile.model_fields["headroom"].default
    strategy, at_once = _together(gpus, base)
    yield "headroom", size_word(headroom)
    yield "host_memory", size_word(base.host_memory)
    yield "max_concurrent_models", str(at_once)
    yield "strategy", strategy
    if strategy == SPLITTING and base.tensor_parallel_above is not None:
        yield "tensor_parallel_above", size_word(base.tensor_parallel_above)
    if base.prefer_quantizations:
        yield "prefer_quantizations", f"[{', '.join(base.prefer_quantizations)}]"
    yield "selection_bias", base.selection_bias
    for key, seconds in (("start_timeout", base.start_timeout), ("grace", base.grace)):
        if seconds is not None:
            yield key, f"{seconds:g}s"


def _together(gpus: Sequence[FoundGpu], base: Profile) -> tuple[str, int]:
    """At least one model for each device. Nothing is split over slices, nor where `base` splits nothing."""
    at_once = max(base.max_concurrent_models, len(gpus))
    can_split = len(gpus) > 1 and not any(gpu.mig for gpu in gpus)
    if base.strategy == SPLITTING and can_split:
        return SPLITTING, at_once
    if at_once == 1:
        return "load_unload", 1
    return ("concurrent_limited" if base.strategy in {SPLITTING, "load_unload"} else base.strategy), at_once


def excused(name: str, roles: Sequence[str], listed: Mapping[str, bool]) -> str:
    """Lines that let `roles` (one at least) be missing on the profile; `listed` says which have such a list already."""
    lines = [f"  {role}: {{may_be_missing_on{'+' if listed.get(role) else ''}: [{name}]}}" for role in roles]
    return "\n".join(("roles:", *lines, ""))
