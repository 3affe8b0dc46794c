"""Which secrets a model gets and under which names, and those that clients of the proxy show.

Owns the way from `{secret: NAME}` to the declared source of that secret. Knows no value.
"""

from __future__ import annotations

from collections.abc import Mapping

from imageworks.model.secret import SecretRef
from imageworks.model.stack import May, Model, Stack
from imageworks.plan.ir import ClientKey, Secret


def texts(model: Model) -> Mapping[str, str]:
    """The variables of the model's program that are plain texts."""
    return {name: value for name, value in model.env.items() if isinstance(value, str)}


def secrets(stack: Stack, model: Model) -> Mapping[str, Secret]:
    """The variables of the model's program that hold secrets."""
    return {name: _declared(stack, value) for name, value in model.env.items() if isinstance(value, SecretRef)}


def key(stack: Stack, model: Model) -> Secret | None:
    """The bearer token of a remote model."""
    return _declared(stack, model.key) if model.key is not None else None


def clients(stack: Stack) -> tuple[ClientKey, ...]:
    """The keys of clients, by name."""
    return tuple(
        ClientKey(
            name,
            _declared(stack, item.key),
            _scope(item.may.roles),
            _models(item.may),
            item.may.admin,
            item.rate,
            item.tokens,
            item.concurrency,
            item.expires,
        )
        for name, item in sorted(stack.proxy.auth.keys.items())
    )


def _models(may: May) -> tuple[str, ...] | None:
    """Every model by name for who may ask for every role, unless it is said otherwise."""
    if may.models is not None:
        return _scope(may.models)
    return None if isinstance(may.roles, str) else ()


def _scope(names: tuple[str, ...] | str) -> tuple[str, ...] | None:
    return None if isinstance(names, str) else tuple(sorted(names))


def _declared(stack: Stack, reference: SecretRef) -> Secret:
    source = stack.secrets[reference.secret]
    return Secret(reference.secret, source.env, source.file, source.credential)
