"""What every part of the typed stack has in common.

Owns `Part`, the base of all declarations in `stack` and `sources`.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Common behaviour of every part of the stack: frozen, and a key that is not declared is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
