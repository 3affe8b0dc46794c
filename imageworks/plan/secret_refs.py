"""Which secrets a model gets, and under which names.

Owns the way from `{secret: NAME}` in a model to the declared source of that secret. Knows no value.
"""

from __future__ import annotations

from collections.abc import Mapping

from imageworks.model.secret import SecretRef
from imageworks.model.stack import Model, Stack
from imageworks.plan.ir import Secret


def texts(model: Model) -> Mapping[str, str]:
    """The variables of the model's program that are plain texts."""
    return {name: value for name, value in model.env.items() if isinstance(value, str)}


def secrets(stack: Stack, model: Model) -> Mapping[str, Secret]:
    """The variables of the model's program that hold secrets."""
    return {name: _declared(stack, value) for name, value in model.env.items() if isinstance(value, SecretRef)}


def key(stack: Stack, model: Model) -> Secret | None:
    """The bearer token of a remote model."""
    return _declared(stack, model.key) if model.key is not None else None


def _declared(stack: Stack, reference: SecretRef) -> Secret:
    source = stack.secrets[reference.secret]
    return Secret(reference.secret, source.env, source.file, source.credential)
