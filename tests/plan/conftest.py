"""Stacks for the planner's tests: written as YAML and read by the real front end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from imageworks.diagnostics.model import Diagnostic
from imageworks.model.load import load
from imageworks.model.loaded import Loaded
from imageworks.model.lock import Architecture, Lock, LockedModel, write
from imageworks.plan.ir import Plan, PlannedModel
from imageworks.plan.resolve import resolve
from imageworks.source.files import DiskFiles, MemoryFiles

ROOT = Path(__file__).parents[2]
EIGHT_B = Architecture(family="qwen3_vl", layers=36, kv_heads=8, head_dim=128, context_limit=262144)


@pytest.fixture(scope="session")
def read() -> Callable[..., Loaded]:
    """`read(text, **lock)`: the stack of `text`, with lock entries by model id; a finding of the front end fails."""

    def find(text: str, **lock: LockedModel) -> Loaded:
        entries = {name.replace("_", "-"): entry for name, entry in lock.items()}
        files = {"stack.yaml": text, "models.lock": write(Lock(models=entries))}
        outcome = load("stack.yaml", MemoryFiles(files), "studio")
        assert outcome.loaded is not None, outcome.diagnostics
        return outcome.loaded

    return find


@pytest.fixture(scope="session")
def known() -> Callable[..., LockedModel]:
    """`known(gib, net)`: a lock entry; the default network has 144 KiB of KV cache a token."""

    def entry(weights: float | None = None, net: Architecture | None = EIGHT_B, **more: object) -> LockedModel:
        size = None if weights is None else int(weights * 2**30)
        return LockedModel.model_validate({"origin": "published", "weights_bytes": size, "architecture": net, **more})

    return entry


@pytest.fixture(scope="session")
def shipped_loaded() -> Loaded:
    """The repository's own stack."""
    outcome = load("stack.yaml", DiskFiles(ROOT), "home-studio")
    assert outcome.loaded is not None, outcome.diagnostics
    return outcome.loaded


@pytest.fixture(scope="session")
def shipped(shipped_loaded: Loaded) -> Mapping[str, Plan]:
    """The plans of the repository's own stack, by profile."""
    plans, findings = resolve(shipped_loaded)
    assert plans, findings
    return {plan.profile: plan for plan in plans}


@pytest.fixture(scope="session")
def codes() -> Callable[[Loaded], tuple[str, ...]]:
    """Codes of all findings of `resolve`, in order."""
    return lambda loaded: tuple(item.code for item in resolve(loaded)[1])


@pytest.fixture(scope="session")
def one() -> Callable[[Loaded, str], Diagnostic]:
    """The only finding with a code."""

    def find(loaded: Loaded, code: str) -> Diagnostic:
        found = [item for item in resolve(loaded)[1] if item.code == code]
        assert len(found) == 1, found
        return found[0]

    return find


@pytest.fixture(scope="session")
def placed() -> Callable[[Loaded, str, str], PlannedModel]:
    """A model in the plan of one profile; a finding of any weight fails the test."""

    def find(loaded: Loaded, profile: str, model: str) -> PlannedModel:
        plans, findings = resolve(loaded)
        assert not findings, findings
        found = next(plan for plan in plans if plan.profile == profile).model(model)
        assert found is not None
        return found

    return find
