"""What the tests of the front end read stacks with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from imageworks.model.load import Outcome, load
from imageworks.source.files import MemoryFiles

Read = Callable[..., Outcome]
HEAD = "version: 1\nmodels:\n  m: {backend: llamacpp, source: {path: m.gguf}}\n"


@pytest.fixture
def read() -> Read:
    """`read(text, files)`: load a stack held in memory, with other files by name."""

    def run(text: str, files: dict[str, str] | None = None, folder: str = "studio") -> Outcome:
        return load("stack.yaml", MemoryFiles({"stack.yaml": text, **(files or {})}), folder)

    return run


@pytest.fixture
def found(read: Read) -> Callable[..., list[tuple[str, int, int]]]:
    """`found(text)`: (code, line, column) of every finding; a text without `version` gets the smallest stack before it."""

    def run(text: str, files: dict[str, str] | None = None) -> list[tuple[str, int, int]]:
        outcome = read(text if "version:" in text else HEAD + text, files)
        spans = [(item.code, item.primary.span) for item in outcome.diagnostics if item.primary is not None]
        return [(code, span.line, span.column) for code, span in spans]

    return run
