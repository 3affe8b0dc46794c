"""Which models may be loaded together, as sets that no set of the profile exceeds.

Owns the enumeration for formats that want sets written out. The rule is the runtime's own: the share of every GPU,
the host's memory, and the number of models at once. A set that is missing costs a reload, never memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from imageworks.plan.ir import MIB, Plan, PlannedModel
from imageworks.values import dataclass

EXACT = 12
"""Up to so many models every largest set is listed; beyond, one for each model."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a profile can hold, or has left, in MiB, and how many models at once."""

    slots: Mapping[int, int]
    host: int
    count: int
    counts_host: bool

    def without(self, models: Iterable[PlannedModel]) -> Room:
        """What is left beside `models`; below zero where they do not fit."""
        slots, host, count = dict(self.slots), self.host, self.count
        for model in models:
            for slot, mib in model.mib_per_slot().items():
                slots[slot] = slots.get(slot, 0) - mib
            host -= model.host_mib()
            count -= self._counts(model)
        return Room(slots, host, count, self.counts_host)

    def takes(self, model: PlannedModel) -> bool:
        """True when `model` fits into what is left."""
        return (
            all(mib <= self.slots.get(slot, 0) for slot, mib in model.mib_per_slot().items())
            and model.host_mib() <= max(self.host, 0)
            and self._counts(model) <= max(self.count, 0)
        )

    def holds(self, models: Iterable[PlannedModel]) -> bool:
        """True when `models` fit together."""
        left = self.without(models)
        return min(left.host, left.count, *left.slots.values()) >= 0

    def _counts(self, model: PlannedModel) -> bool:
        """The cap counts models on GPUs; on a machine without one those on the host."""
        return bool(model.host_mib() if self.counts_host else model.mib_per_slot())


def room(plan: Plan) -> Room:
    """The room of `plan`'s profile."""
    return Room(
        slots={device.slot: device.budget // MIB for device in plan.devices},
        host=plan.policy.host_memory // MIB,
        count=1 if plan.policy.strategy == "load_unload" else plan.policy.max_concurrent_models,
        counts_host=not plan.devices,
    )


def together(plan: Plan, models: Sequence[PlannedModel]) -> tuple[tuple[str, ...], ...]:
    """Ids of `models` that may be loaded at once, each model in at least one; residents are in every set.

    Residents that are not among `models` (a pinned Ollama model) keep their room.
    """
    kept = tuple(model for model in plan.models if model.id in plan.policy.resident)
    left = room(plan).without(kept)
    others = [model for model in models if model.id not in plan.policy.resident]
    sets = _exact(left, kept, others) if len(others) <= EXACT else _one_each(left, kept, others)
    inside = {model.id for model in models}
    written = (tuple(model.id for model in found if model.id in inside) for found in sets)
    return tuple(dict.fromkeys(found for found in written if found))


def _exact(
    left: Room, kept: tuple[PlannedModel, ...], others: Sequence[PlannedModel], first: int = 0
) -> Iterator[tuple[PlannedModel, ...]]:
    """Every set that no further model fits into. `left` is the room beside `kept`."""
    for index in range(first, len(others)):
        if left.takes(others[index]):
            yield from _exact(left.without([others[index]]), (*kept, others[index]), others, index + 1)
    if not any(left.takes(other) for other in others if other not in kept):
        yield kept


def _one_each(
    left: Room, kept: tuple[PlannedModel, ...], others: Sequence[PlannedModel]
) -> Iterator[tuple[PlannedModel, ...]]:
    """For each model one set with it, filled in plan order."""
    for model in others:
        chosen, rest = [*kept, model], left.without([model])
        for other in others:
            if other is not model and rest.takes(other):
                chosen.append(other)
                rest = rest.without([other])
        yield tuple(chosen)
