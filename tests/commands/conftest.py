"""Running verbs in this process, inside a folder of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from imageworks.cli import run

SMALL = """version: 1
models:
  gemma-4b:
    backend: llamacpp
    source: {path: gemma-3-4b-it-Q4_K_M.gguf}
    vram: {weights: 2.5GiB, kv: 0.5GiB}
    roles: {chat: 50}
"""

Verb = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory without any of our environment variables."""
    for name in ("IMAGEWORKS_DEPLOYMENT_PROFILE", "IMAGEWORKS_STATE", "IMAGEWORKS_STORE", "IMAGEWORKS_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small(folder: Path) -> Path:
    """A folder with the smallest useful stack."""
    (folder / "stack.yaml").write_text(SMALL, encoding="utf-8")
    return folder


@pytest.fixture
def verb(capsys: pytest.CaptureFixture[str]) -> Verb:
    """`verb("check", …)` -> exit code, stdout, stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        code = run(list(words))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
