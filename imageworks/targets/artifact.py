"""What an emitter returns.

Owns `Artifact` and the `Target` protocol. A target is one module with a `NAME` and an `emit` that
turns a plan into artifacts; it must not read files, clocks or the environment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from imageworks.plan.ir import Plan
from imageworks.values import dataclass


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file to be written.

    `path` is relative to the profile's folder (`vllm/x.sh`), with `/` as separator.
    `text` is encoded as UTF-8 with LF line ends; `mode` is the permission bits.
    """

    path: str
    text: str
    mode: int = 0o644


class Target(Protocol):
    """One output format."""

    NAME: str

    def emit(self, plan: Plan, plans: Sequence[Plan]) -> Iterable[Artifact]:
        """Return the files of `plan`; `plans` are those of all profiles (routes carry every role table)."""
        ...
