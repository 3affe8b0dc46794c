"""Which model runs where on one profile, and which cannot.

Owns the choice GPU, CPU or remote, the slots, and the reasons of what is left out (IW405, IW410, IW412, IW421).
Works with each model's smallest demand; what is left over is shared out by `ranges`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from imageworks.model.scalars import GpuCount, Slice
from imageworks.model.stack import Profile
from imageworks.plan.facts import Facts
from imageworks.plan.ir import MIB, Device, Memory, Placement, Unplaced
from imageworks.plan.text import gib, gib_needed, gib_usable, joined, plural, size_word
from imageworks.plan.vram import Kind, Shape, kv_cache, memory
from imageworks.values import dataclass

SPLITTING = "tensor_parallel_or_distributed"
LEAST_COMPUTE = {"bf16": (8, 0), "mxfp4": (8, 0)}
"""Compute capability below which vLLM has no kernel for a quantization (vLLM's table of supported hardware)."""
NATIVE_FP8 = (8, 9)


@dataclass(frozen=True, slots=True)
class Ground:
    """One profile as the planner sees it: its GPUs and how many models may be loaded at once."""

    name: str
    profile: Profile
    devices: tuple[Device, ...]

    @property
    def at_once(self) -> int:
        """Models that may be loaded together on the GPUs (on the CPU where there is none)."""
        return 1 if self.profile.strategy == "load_unload" else self.profile.max_concurrent_models

    @property
    def budget(self) -> int:
        """Bytes of the largest GPU that may be planned; 0 without one."""
        return self.room(1)

    def room(self, gpus: int) -> int:
        """Bytes on each GPU for a model on `gpus` of them; 0 without so many."""
        return self.bound(gpus).budget if len(self.devices) >= gpus else 0

    def bound(self, gpus: int) -> Device:
        """The GPU that decides for a model on the largest `gpus` of them: the smallest of these. Needs so many."""
        return _largest_first(self.devices)[gpus - 1]

    @property
    def compute(self) -> tuple[int, int] | None:
        """The lowest compute capability that a GPU of the profile may have; None when that is not said."""
        bounds = [slot.compute for slot in self.profile.match.slots]
        return None if not bounds or None in bounds else min(bound.low for bound in bounds if bound is not None)


def _largest_first(devices: Iterable[Device]) -> list[Device]:
    return sorted(devices, key=lambda device: (-device.budget, device.slot))


def ground(name: str, profile: Profile) -> Ground:
    """The devices of `profile`: each of the lower end of its vram, less the headroom."""
    floors = (slot.floor for slot in profile.match.slots)
    devices = (Device(slot, floor, min(profile.headroom, floor)) for slot, floor in enumerate(floors))
    return Ground(name, profile, tuple(devices))


def least(facts: Facts, kind: Kind, gpus: int) -> Memory:
    """The smallest need of a model: the lower ends of its ranges."""
    return memory(facts, Shape(kind, gpus, facts.context.low, facts.concurrency.low))


def whole_mib(size: int, parts: int = 1) -> int:
    """One of `parts` equal shares, rounded up to whole MiB: the unit in which the runtime keeps its books."""
    return -(-size // (parts * MIB)) * MIB


Outcome = Placement | Unplaced


def place(facts: Mapping[str, Facts], where: Ground) -> Mapping[str, Outcome]:
    """Placement of each model, by id in sorted order."""
    outcomes: dict[str, Outcome] = {item.id: _alone(item, where) for item in facts.values()}
    if len(where.devices) > 1:
        movable = [model_id for model_id, outcome in outcomes.items() if _is_on_gpus(outcome)]
        outcomes |= _spread((facts[model_id] for model_id in movable), where)
    return outcomes


def gpus_of(facts: Facts, where: Ground) -> int:
    """How many GPUs the model is split over: what its placement says, else all where the profile splits it."""
    wanted = facts.model.placement
    if isinstance(wanted, GpuCount):
        return wanted.gpus
    return len(where.devices) if _is_split(facts, where) else 1


def _allowed(facts: Facts, where: Ground) -> list[Device]:
    """The GPUs that the model's placement allows, largest first."""
    wanted, slots = facts.model.placement, where.profile.match.slots
    devices = _largest_first(where.devices)
    return [item for item in devices if slots[item.slot].mig == wanted.mig] if isinstance(wanted, Slice) else devices


def _is_on_gpus(outcome: Outcome) -> bool:
    return isinstance(outcome, Placement) and outcome.kind == "gpu"


def _alone(facts: Facts, where: Ground) -> Outcome:
    if facts.model.url is not None:
        return Placement("remote", (), "a server of somebody else: takes no memory here")
    if facts.missing:
        return _out(facts, "IW421", f"{facts.missing} not known: run `imageworks up` where the files are", Memory())
    wanted = facts.model.placement or ("auto" if facts.model.backend == "llamacpp" else "gpu")
    if wanted == "cpu":
        return _on_cpu(facts, where, "placement: cpu")
    on_gpu = _on_gpu(facts, where, wanted)
    if isinstance(on_gpu, Unplaced) and wanted == "auto" and facts.model.backend != "vllm":
        why = f"the GPU cannot take all of it: {on_gpu.reason}" if where.devices else f"{where.name} has no GPU"
        return _on_cpu(facts, where, f"placement: auto, and {why}")
    return on_gpu


def _out(facts: Facts, code: str, reason: str, need: Memory) -> Unplaced:
    return Unplaced(facts.id, code, reason, facts.capabilities, need)


def _on_cpu(facts: Facts, where: Ground, why: str) -> Outcome:
    if facts.model.backend == "vllm":
        return _out(facts, "IW405", "vllm needs a GPU", Memory())
    need, room = least(facts, "cpu", 0), where.profile.host_memory
    if whole_mib(need.total) > room // MIB * MIB:
        return _out(facts, "IW412", _too_large(need, room, f"host_memory of {where.name}"), need)
    return _starved(facts, need) or Placement("cpu", (), why)


def _on_gpu(facts: Facts, where: Ground, wanted: str | GpuCount | Slice) -> Outcome:
    if not where.devices:
        return _out(facts, "IW405", f"needs a GPU, and {where.name} has none", Memory())
    gpus, allowed = gpus_of(facts, where), _allowed(facts, where)
    if len(allowed) < gpus:
        asked = f"a slice {wanted.mig}" if isinstance(wanted, Slice) else plural(gpus, "GPU")
        has = "none" if isinstance(wanted, Slice) else str(len(allowed))
        return _out(facts, "IW405", f"placement: needs {asked}, and {where.name} has {has}", Memory())
    unfit = _unfit_hardware(facts, where)
    if unfit:
        return _out(facts, "IW405", unfit, Memory())
    need, usable = least(facts, "gpu", gpus), allowed[gpus - 1].budget
    if whole_mib(need.total, gpus) > usable // MIB * MIB:
        room = f"{plural(gpus, 'GPU')} of {where.name}"
        return _out(facts, "IW410", _too_large(need, usable * gpus, room), need)
    slots = tuple(sorted(device.slot for device in allowed[:gpus]))
    return _starved(facts, need) or Placement("gpu", slots, _gpu_why(facts, where, gpus))


def _unfit_hardware(facts: Facts, where: Ground) -> str:
    floor = LEAST_COMPUTE.get(facts.quantization or "")
    offered = where.compute
    if facts.model.backend != "vllm" or floor is None or offered is None or offered >= floor:
        return ""
    return f"{facts.quantization} on vllm needs compute capability {_dotted(floor)}; {where.name} starts at {_dotted(offered)}"


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _is_split(facts: Facts, where: Ground) -> bool:
    """True when the profile splits this model over all its GPUs."""
    limit = where.profile.tensor_parallel_above
    if facts.model.backend != "vllm" or where.profile.strategy != SPLITTING or limit is None:
        return False
    size = facts.weights or facts.total
    return size is not None and size.bytes > limit


def _gpu_why(facts: Facts, where: Ground, gpus: int) -> str:
    wanted = facts.model.placement
    if isinstance(wanted, GpuCount) and gpus > 1:
        return f"placement: split over {gpus} GPUs"
    if gpus > 1 and where.profile.tensor_parallel_above is not None:
        return f"weights above {size_word(where.profile.tensor_parallel_above)} are split over all {gpus} GPUs"
    why = f"fits one GPU of {where.name}"
    offered = where.compute
    if facts.quantization == "fp8" and (offered is None or offered < NATIVE_FP8):
        why += f"; fp8 is native from compute {_dotted(NATIVE_FP8)}, slower (weight-only) below"
    return why


def _too_large(need: Memory, room: int, name: str) -> str:
    terms = " + ".join(f"{term.name} {gib(term.bytes)}" for term in need.terms)
    return f"{gib_needed(need.total)} GiB needed, {gib_usable(room)} usable on {name}: {terms}"


def _starved(facts: Facts, need: Memory) -> Unplaced | None:
    """A declared KV cache that cannot hold one request: the engine would refuse to start."""
    per_token = facts.kv_bytes_per_token
    if facts.kv is None or not per_token:
        return None
    term = kv_cache(facts, Shape("gpu", 1, facts.context.low, 1))
    holds = term.bytes // per_token
    if holds >= facts.context.low:
        return None
    reason = (
        f"the declared KV cache of {gib(term.bytes)} GiB holds {holds} tokens, a request may have {facts.context.low}"
    )
    return _out(facts, "IW410", reason, need)


def _spread(movable: Iterable[Facts], where: Ground) -> Mapping[str, Placement]:
    """The largest first, each to the GPUs that have the most room beside the needs so far, of those that can hold it."""
    load = dict.fromkeys((device.slot for device in where.devices), 0)
    room = {device.slot: device.budget for device in where.devices}
    placed: dict[str, Placement] = {}
    for facts in sorted(movable, key=lambda item: (-least(item, "gpu", gpus_of(item, where)).total, item.id)):
        gpus = gpus_of(facts, where)
        size = whole_mib(least(facts, "gpu", gpus).total, gpus)
        able = [device.slot for device in _allowed(facts, where) if size <= device.budget // MIB * MIB]
        slots = tuple(sorted(sorted(able, key=lambda slot: (load[slot] - room[slot], slot))[:gpus]))
        if len(able) > gpus:
            names = joined(tuple(str(slot) for slot in slots))
            taken = joined(tuple(gib(load[slot]) for slot in slots))
            verb = "GPU {} was the emptiest" if gpus == 1 else "GPUs {} were the emptiest"
            placed[facts.id] = Placement("gpu", slots, f"{verb.format(names)}, with {taken} GiB of larger models")
        for slot in slots if gpus < len(where.devices) else ():  # what is on all of them makes none of them emptier
            load[slot] += least(facts, "gpu", gpus).total // gpus
    return placed
