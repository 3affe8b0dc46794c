"""One finding of `imageworks doctor`.

Owns the value only. `error` is what keeps the stack from working or is known to be dangerous, `warning` what may.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`found` is what is there, `todo` what a person does about it; empty where nothing is to be done."""

    check: str
    level: Level
    found: str
    todo: str = ""
