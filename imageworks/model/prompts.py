"""A prompt profile as written under prompts/<layer>/<app>/<profile>.yaml.

Owns the simple form: texts of a system and a user message with `{{ name }}` slots. Layers are merged
key by key by the loader; rendering is the runtime's (prompt hub) work.
"""

from __future__ import annotations

from pydantic import Field

from imageworks.model.part import Part
from imageworks.model.scalars import Text


class PromptFile(Part):
    """What may stand in a prompt file, all layers together."""

    version: Text
    system: Text = ""
    user: Text = Field(min_length=1)


class PromptProfile(PromptFile):
    """What is said to a model. `layers` names the layers that contributed, lowest first."""

    layers: tuple[str, ...] = ()
