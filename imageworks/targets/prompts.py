"""prompts.json: the prompt bundle, content-addressed.

Owns its shape: every prompt with its hash, the stages bound to them, and the hash over all. Texts stand as the
plan has them; nothing is rendered here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from imageworks import contract
from imageworks.plan.ir import Plan
from imageworks.targets.artifact import Artifact

NAME = "prompts"


def emit(plan: Plan, plans: Sequence[Plan]) -> Iterable[Artifact]:
    """One file."""
    del plans  # the bundle is the same on every profile
    bundle = dataclasses.asdict(plan.bundle)
    document = {"schema": contract.PROMPTS_SCHEMA, "bundle_hash": bundle.pop("hash"), **bundle}
    yield Artifact("prompts.json", contract.to_json(document))
