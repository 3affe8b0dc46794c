"""What every declaration has in common that we read through pydantic.

Owns `Part`, the base of all declarations in `stack` and `sources`, of models.lock and of prompt files.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Frozen, and a key that is not declared is refused. Validators are built when first used: a part's with its whole's."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
