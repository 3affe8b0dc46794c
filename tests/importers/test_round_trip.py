"""Our own llama-swap.yaml, read back by our own importer: what is planned comes back as what is declared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from imageworks.importers import llama_swap
from imageworks.importers.draft import Imported
from imageworks.model.load import load
from imageworks.model.sources import PathSource
from imageworks.model.stack import Stack
from imageworks.plan.ir import Plan
from imageworks.plan.resolve import resolve
from imageworks.source.files import DiskFiles, MemoryFiles
from imageworks.source.text import SourceFile
from imageworks.targets import registry

ROOT = Path(__file__).parents[2]
WANTED = "targets: {llama_swap: {enabled: true}}\n"


@pytest.fixture(scope="module")
def shipped() -> dict[str, Plan]:
    """The repository's own stack with the target switched on."""
    disk = DiskFiles(ROOT)
    text = disk.read("stack.yaml").decode()
    kept = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("targets:"))
    files = {name: disk.read(name) for name in ("models.lock", *disk.names("prompts"))}
    outcome = load("stack.yaml", MemoryFiles({**files, "stack.yaml": kept + WANTED}), "home-studio")
    assert outcome.loaded is not None, outcome.diagnostics
    plans, _ = resolve(outcome.loaded)
    return {plan.profile: plan for plan in plans}


@pytest.mark.parametrize("profile", ["development", "constrained_16gb", "generous_96gb", "multi_gpu_2x16gb"])
def test_what_was_planned_comes_back(
    shipped: dict[str, Plan], profile: str, stack: Callable[[Imported], Stack]
) -> None:
    plan = shipped[profile]
    (file,) = (item for item in registry.emit(plan, list(shipped.values())) if item.path == "llama-swap.yaml")
    imported = llama_swap.convert(SourceFile("llama-swap.yaml", file.text), lambda _: ())
    found = stack(imported)
    compared = 0
    for model in plan.models:
        if model.backend not in {"vllm", "llamacpp"}:
            continue
        back = found.models[model.id]
        assert (back.backend, back.context, back.concurrency) == (model.backend, model.context, model.concurrency)
        assert back.grace == (None if model.pinned else model.grace_s) or model.id in plan.policy.resident
        assert set(model.aliases) <= set(back.aliases)
        path = next(
            flag.value
            for flag in (model.launch.flags if model.launch else ())
            if "{" in (flag.value or "") and flag.value != "{python}"
        )
        assert isinstance(back.source, PathSource)
        assert str(path).endswith(back.source.path)
        compared += 1
    assert compared >= 3
