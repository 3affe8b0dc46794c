"""Imports with the whole compiler behind them, and the registry of a made-up studio."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imageworks.diagnostics.model import Diagnostic
from imageworks.importers import llama_swap, registry
from imageworks.importers.draft import STACK, Imported
from imageworks.model.load import load
from imageworks.model.stack import Stack
from imageworks.plan.ir import Plan
from imageworks.plan.resolve import resolve
from imageworks.source.files import MemoryFiles
from imageworks.source.text import SourceFile

HERE = Path(__file__).parent


def compiled(text: str) -> tuple[tuple[Plan, ...], tuple[Diagnostic, ...]]:
    outcome = load(STACK, MemoryFiles({STACK: text}), "imported")
    if outcome.loaded is None:
        return (), outcome.diagnostics
    plans, found = resolve(outcome.loaded)
    return plans, (*outcome.diagnostics, *found)


def findings(text: str) -> tuple[Diagnostic, ...]:
    return compiled(text)[1]


@pytest.fixture
def studio() -> Imported:
    """The two layers of registry/, imported."""
    layers = [
        SourceFile(name, (HERE / "registry" / name).read_text("utf-8")) for name in ("curated.json", "discovered.json")
    ]
    return registry.convert(layers[0], layers[1], findings)


@pytest.fixture
def entries() -> Callable[..., Imported]:
    """`entries(a, b)`: a registry of these entries, imported; a name is filled in where one lacks."""

    def make(*found: dict[str, Any]) -> Imported:
        filled = [{"name": f"m{number}"} | entry for number, entry in enumerate(found)]
        return registry.convert(SourceFile("curated.json", json.dumps(filled)), None, findings)

    return make


@pytest.fixture
def swapped() -> Callable[[str], Imported]:
    """`swapped(text)`: a llama-swap configuration, imported."""
    return lambda text: llama_swap.convert(SourceFile("config.yaml", text), findings)


@pytest.fixture
def stack() -> Callable[[Imported], Stack]:
    """The typed stack of an import; an error of the front end fails the test."""

    def read(imported: Imported) -> Stack:
        assert imported.text is not None, imported.diagnostics
        outcome = load(STACK, MemoryFiles({STACK: imported.text}), "imported")
        assert outcome.loaded is not None, outcome.diagnostics
        return outcome.loaded.stack

    return read


@pytest.fixture
def plans() -> Callable[[Imported], dict[str, Plan]]:
    """The plans of an import by profile; an error fails the test."""

    def read(imported: Imported) -> dict[str, Plan]:
        found, diagnostics = compiled(imported.text or "")
        assert not [item for item in diagnostics if item.is_error], diagnostics
        return {plan.profile: plan for plan in found}

    return read


@pytest.fixture
def told() -> Callable[[Imported], list[tuple[str, str]]]:
    """(code, message) of every finding."""
    return lambda imported: [(item.code, item.message) for item in imported.diagnostics]
