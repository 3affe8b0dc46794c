"""A sample of scripts/fuzz, and texts of hypothesis: the front end ends in a plan or in findings, whatever the bytes."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import types
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageworks.diagnostics.model import Diagnostic, Fix, Label
from imageworks.model.load import Outcome
from imageworks.source.text import SourceFile

TOOL = Path(__file__).parent / "tools" / "fuzz.py"
SAMPLE_S = float(os.environ.get("IMAGEWORKS_FUZZ_SECONDS", "20"))


def _tool() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module
    spec.loader.exec_module(module)
    return module


fuzz = _tool()


@pytest.mark.parametrize(
    "text", [fuzz.SMALL, fuzz.CARD, fuzz.ROLES, fuzz.LAYERED], ids=["small", "card", "roles", "layered"]
)
def test_the_undamaged_stacks_compile(text: str) -> None:
    assert fuzz.outcome(text.encode()) == "compiled"


def test_an_input_is_always_the_same_bytes() -> None:
    made = [fuzz.damaged(7, number) for number in range(50)]
    assert made == [fuzz.damaged(7, number) for number in range(50)]
    assert len(set(made)) > 45


def test_damaged_stacks_compile_or_are_refused_with_a_place() -> None:
    """As many as fit into the time, the same on every run; scripts/fuzz takes any seed."""
    counts, _ = fuzz.run(2, range(1_000_000), time.monotonic() + SAMPLE_S)
    assert counts["refused"] > 0
    assert counts["compiled"] > 0


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_a_place(data: bytes) -> None:
    assert fuzz.outcome(data) == "refused"


def _texts() -> st.SearchStrategy[str]:
    word = st.sampled_from([*fuzz.WORDS, "a", "b:", "\n", "\n  ", "\t", "\r\n"]) | st.text(max_size=3)
    return st.lists(word, max_size=40).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(
    _texts(), st.sampled_from(["", "version: 1\nmodels:\n  m: ", "version: 1\nroles: ", "version: 1\nprofiles:\n  p: "])
)
def test_any_text_in_any_section_is_refused_with_a_place_or_compiles(text: str, before: str) -> None:
    assert fuzz.outcome((before + text).encode("utf-8", "replace")) in {"compiled", "refused"}


@settings(max_examples=100, deadline=None)
@given(_texts())
def test_a_prompt_file_may_hold_anything(text: str) -> None:
    assert fuzz.outcome(fuzz.ROLES.encode(), text.encode("utf-8", "replace")) in {"compiled", "refused"}


@pytest.mark.parametrize(
    "finding",
    [
        Diagnostic("IW201", "x", None),
        Diagnostic("IW999", "x", Label(SourceFile("stack.yaml", "a: b\n").span(0, 1))),
        Diagnostic("IW201", "x", Label(SourceFile("stack.yaml", "a: bcdefgh\n").span(0, 9)), fixes=(Fix("f"),)),
    ],
    ids=["without a place", "without an explanation", "beyond the text"],
)
def test_a_finding_without_a_real_place_would_be_noticed(finding: Diagnostic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "load", lambda *_: Outcome(None, (finding,), {"stack.yaml": "a: b\n"}))
    with pytest.raises(AssertionError):
        fuzz.outcome(b"a: b\n")
