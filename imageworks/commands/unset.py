"""Secrets that a start would not find, told before it.

Owns what `up` says about them. Looks whether a value is there and forgets it; the programs read it themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from imageworks import credentials
from imageworks.plan.ir import Plan, PlannedModel, Secret
from imageworks.targets.execspec import secret as reference


def unset(plan: Plan, folder: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """A line for each secret without a usable value, with the models or the client of `plan` that wait for it."""
    waiting: dict[Secret, list[str]] = {}
    for model in plan.models:
        for secret in _secrets(model):
            waiting.setdefault(secret, []).append(model.id)
    for secret, models in waiting.items():
        try:
            credentials.read(reference(secret), folder, environ)
        except credentials.SecretError as error:
            yield f"{', '.join(dict.fromkeys(models))} cannot be served: {error}"
    for key in plan.proxy.keys:
        try:
            credentials.read(reference(key.secret), folder, environ)
        except credentials.SecretError as error:
            yield f"client {key.name} cannot show its key: {error}"


def _secrets(model: PlannedModel) -> Iterator[Secret]:
    if model.launch is not None:
        yield from model.launch.secrets.values()
    if model.key is not None:
        yield model.key
