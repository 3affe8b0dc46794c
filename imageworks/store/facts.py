"""Facts of weights that lie on this machine, for `models.lock`.

Owns the choice of the reader and the merge into the lock. What a lock already knows from elsewhere is kept where a
file is silent. Where the files of a model lie is the plan's knowledge (`plan.sources`): callers bring the paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imageworks.model.lock import Lock, LockedModel
from imageworks.store import folder, gguf_model
from imageworks.store.errors import FactsError


@dataclass(frozen=True, slots=True)
class Weights:
    """Where one model's weights lie: a GGUF file or a folder in Hugging Face layout, and a GGUF vision projector."""

    path: Path
    mmproj: Path | None = None


@dataclass(frozen=True, slots=True)
class Learnt:
    """The lock with what was read, the ids it was read for, and why it could not be read for others."""

    lock: Lock
    models: tuple[str, ...]
    problems: Mapping[str, str]


def read_facts(weights: Weights) -> LockedModel:
    """The facts of the files. Raises FactsError with one sentence when they are missing, damaged or incomplete."""
    if weights.path.is_dir():
        return folder.read_model(weights.path)
    return gguf_model.read_model(weights.path, weights.mmproj)


def update_lock(lock: Lock, wanted: Mapping[str, Weights]) -> Learnt:
    """`lock` with the facts of the `wanted` models (by id) whose weights are there; the others wait until they are."""
    models, learnt, problems = dict(lock.models), [], {}
    for model_id, weights in wanted.items():
        if not weights.path.exists():
            continue
        try:
            models[model_id] = _merged(read_facts(weights), models.get(model_id))
        except FactsError as error:
            problems[model_id] = str(error)
        else:
            learnt.append(model_id)
    return Learnt(Lock(models=models), tuple(learnt), problems)


def _merged(read: LockedModel, known: LockedModel | None) -> LockedModel:
    if known is None:
        return read
    return read.model_copy(
        update={
            "architecture": read.architecture or known.architecture,
            "quantization": read.quantization or known.quantization,
            "capabilities": known.capabilities or read.capabilities,
        }
    )
