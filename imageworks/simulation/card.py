"""The machine of a replay: a profile's own, or the plain one-model card that the personal-tagger job is known for.

Owns `one_model_card` and what of a profile's roles the generated trace asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from imageworks.contract import RouteTable
from imageworks.runtime.residency import Machine, Spec
from imageworks.simulation.trace import TAGGER

CARD_MIB, MODEL_MIB = 12_000, 8_000
LOAD_S = 15.0


def one_model_card(overtakes: int | None = None) -> Machine:
    """A card that holds one of the three models at a time, with the runtime's own rules."""
    specs = {name: Spec(name, {0: MODEL_MIB}, 0, 1e6, 1) for name in TAGGER}
    machine = Machine(specs, {0: CARD_MIB}, 0, 3, 256, uuids={0: "GPU-0"})
    return machine if overtakes is None else replace(machine, max_overtakes=overtakes)


def tagger_models(table: RouteTable) -> tuple[str, ...]:
    """Who answers the tagger's three roles on a profile, best first. Raises KeyError with the role that nobody answers."""
    models = []
    for role in TAGGER:
        found = table.roles.get(table.profile, {}).get(role)
        if found is None or not found.candidates:
            raise KeyError(role)
        models.append(found.candidates[0].model)
    return tuple(models)


def load_times(machine: Machine, load_s: float) -> Mapping[str, float]:
    """How long each model loads: what the plan says, else `load_s`."""
    return {name: spec.load_s if spec.load_s is not None else load_s for name, spec in machine.specs.items()}
