"""A stack folder with one exec spec, and the launcher as the supervisor calls it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from imageworks import contract

SPEC = contract.ExecSpec(
    program="model-tiny",
    argv=("{python}", "-c", "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]))"),
    env={},
    pass_env=("PATH", "HOME"),
    cwd="{stack}",
    stack="../../..",
    roots={"models": contract.Root(env="STUDIO_MODELS", default="models")},
    devices=(),
    needs=(),
)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stack on disk with the profile `small`."""

    folder: Path

    def write(self, **changes: Any) -> Path:
        """Write the spec with some fields replaced; returns its file."""
        file = self.folder / "generated" / "small" / "exec" / "model-tiny.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(contract.to_json(dataclasses.replace(SPEC, **changes)), "utf-8")
        return file

    def bind(self, text: str) -> None:
        """Write devices.json."""
        file = self.folder / ".imageworks" / "run" / "devices.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")

    def launch(self, *words: str | Path, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the launcher with exactly this environment."""
        command = [sys.executable, "-m", "imageworks.launch", *map(str, words)]
        env = {"PATH": "/usr/bin:/bin", **(environ or {})}
        return subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=30)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    folder = tmp_path / "my stack"
    folder.mkdir()
    return Stage(folder)
