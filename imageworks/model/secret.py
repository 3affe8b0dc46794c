"""Secrets: declared by name, given by reference, never written down.

Owns the declaration of a secret (`secrets.NAME`: which variable, file or credential holds it) and the reference to one
(`{secret: NAME}`). No value of a secret is ever known here: it is read when a program starts, by `imageworks.credentials`.
Where a reference may stand is read from the fields that are declared with these types.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from imageworks.model.part import Part
from imageworks.model.scalars import VARIABLE, RootPath, Text
from imageworks.model.written import instead, reads, refuse

VARIABLE_OF_A_PROCESS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
CREDENTIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
SOURCES = ("env", "file", "credential")


def _secret_name(text: str) -> str:
    if VARIABLE.fullmatch(text):
        return text
    near = re.sub(r"[^A-Z0-9]+", "_", text.upper()).strip("_0123456789")
    note = "capital letters, digits and _, a letter first"
    raise refuse("IW211", f"`{text}` cannot name a secret", note, fixes=instead(near) if near else ())


def _process_variable(text: str) -> str:
    if VARIABLE_OF_A_PROCESS.fullmatch(text):
        return text
    raise refuse("IW213", f"`{text}` cannot name an environment variable", "letters, digits and _, no digit first")


def _credential(text: str) -> str:
    if CREDENTIAL.fullmatch(text):
        return text
    raise refuse("IW213", f"`{text}` cannot name a credential", "letters, digits and _ . - as in a file's name")


SecretName = Annotated[
    str,
    BeforeValidator(reads("the name of a secret", _secret_name)),
    WithJsonSchema({"type": "string", "pattern": f"^(?:{VARIABLE.pattern})$"}),
]
EnvName = Annotated[
    str,
    BeforeValidator(reads("a variable's name", _process_variable)),
    WithJsonSchema({"type": "string", "pattern": f"^(?:{VARIABLE_OF_A_PROCESS.pattern})$"}),
]
CredentialName = Annotated[
    str,
    BeforeValidator(reads("a credential's name", _credential)),
    WithJsonSchema({"type": "string", "pattern": f"^(?:{CREDENTIAL.pattern})$"}),
]


class Secret(Part):
    """Where the value of a secret is found when a program starts: exactly one of the three."""

    env: EnvName | None = Field(None, description="environment variable that holds it")
    file: RootPath | None = Field(
        None, description="file that holds it, relative to stack.yaml; absolute only in stack.local.yaml"
    )
    credential: CredentialName | None = Field(None, description="systemd credential that holds it")

    @model_validator(mode="after")
    def _one_source(self) -> Secret:
        said = [name for name in SOURCES if getattr(self, name) is not None]
        if len(said) == 1:
            return self
        label = f"{' and '.join(said)} are {len(said)}" if said else f"one of: {', '.join(SOURCES)}"
        raise refuse("IW305", "a secret has one source", label)


class SecretRef(Part):
    """A secret in a place that takes one."""

    secret: SecretName = Field(description="a name under `secrets:`")


def _text_or_secret(value: Any) -> str:
    return "<secret>" if isinstance(value, dict | SecretRef) else "<text>"


EnvValue = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[SecretRef, Tag("<secret>")], Discriminator(_text_or_secret)
]
