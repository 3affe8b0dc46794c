"""Values of secrets, read when a program starts and never before.

Owns the three places that a value may come from (a variable of the environment, a file, a systemd credential) and the
sentence that says how to set one that is missing. Standard library only, for the launcher starts every process through
it. Writes nothing, prints nothing; no message ever holds a value.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from imageworks import contract, locations

LARGEST_BYTES = 64 << 10
DIRECTORY = "CREDENTIALS_DIRECTORY"
"""Where systemd puts a unit's credentials (systemd.exec(5))."""


class SecretError(Exception):
    """A secret has no usable value; the message is one sentence that says how to set it."""


def read(secret: contract.Secret, stack: Path, environ: Mapping[str, str]) -> str:
    """The value of `secret`; relative files count from the folder `stack`. Raises SecretError."""
    value = _found(secret, stack, environ)
    if not value:
        raise SecretError(f"secret {secret.name} is empty; {how_to_set(secret, stack)}")
    if "\0" in value:
        raise SecretError(f"secret {secret.name} holds a NUL byte, which no environment can carry")
    return value


def _found(secret: contract.Secret, stack: Path, environ: Mapping[str, str]) -> str:
    if secret.env is not None:
        if secret.env not in environ:
            raise SecretError(f"secret {secret.name} is not set; {how_to_set(secret, stack)}")
        return environ[secret.env]
    return _content(secret, place(secret, stack, environ), stack)


def place(secret: contract.Secret, stack: Path, environ: Mapping[str, str]) -> Path:
    """The file that holds a secret which is no variable. Raises SecretError outside of a unit with credentials."""
    if secret.file is not None:
        return locations.absolute(stack, secret.file)
    if not environ.get(DIRECTORY):
        raise SecretError(f"secret {secret.name} is not set; {how_to_set(secret, stack)}")
    return Path(environ[DIRECTORY]) / (secret.credential or "")


def _content(secret: contract.Secret, file: Path, stack: Path) -> str:
    """The text of `file` without its last line end."""
    try:
        with open(file, "rb", opener=_without_waiting) as opened:
            data = opened.read(LARGEST_BYTES + 1)
        text = data.decode()
    except UnicodeError:
        raise SecretError(f"secret {secret.name}: {file} is not text") from None
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise SecretError(f"secret {secret.name}: {file}: {reason}; {how_to_set(secret, stack)}") from None
    if len(data) > LARGEST_BYTES:
        raise SecretError(f"secret {secret.name}: {file} is larger than {LARGEST_BYTES >> 10} KiB")
    return text.removesuffix("\n").removesuffix("\r")


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK)  # so that a pipe does not block


def how_to_set(secret: contract.Secret, stack: Path) -> str:
    """What a person does about a secret that is missing."""
    if secret.env is not None:
        return f"export {secret.env}=… where ImageWorks is started, then: imageworks down && imageworks up"
    if secret.file is not None:
        file = locations.absolute(stack, secret.file)
        return f"write it into {file}, readable by its owner only: chmod 600"
    name = secret.credential
    return (
        f"its source is the systemd credential {name}: put it into /etc/credstore/{name} and start the systemd units; "
        "under supervisord take env or file"
    )
