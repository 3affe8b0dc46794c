"""The drawing in the documents is the table that the scheduler obeys."""

from __future__ import annotations

import importlib.util
import types
from pathlib import Path

import pytest

from imageworks.runtime.residency import LAW

ROOT = Path(__file__).parents[3]


@pytest.fixture
def script() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("gen_diagram", ROOT / "scripts" / "gen_diagram.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_drawing_is_current(script: types.ModuleType) -> None:
    assert script.main(["--check"]) == 0, "run: python scripts/gen_diagram.py"


def test_every_rule_is_an_arrow(script: types.ModuleType) -> None:
    arrows = [line for line in script.drawing().splitlines() if " --> " in line]
    assert len(arrows) == len(LAW) + 1


def test_another_law_is_another_drawing(script: types.ModuleType) -> None:
    page = (ROOT / "docs" / "scheduler.md").read_text("utf-8")
    assert script.drawn(page.replace("starting --> ready: ready", "starting --> ready: somehow")) == page
