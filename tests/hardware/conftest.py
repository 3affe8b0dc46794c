"""A fake driver under the real nvidia-ml-py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[1] / "tools" / "fake_nvml.c"
ASK = """
import dataclasses, json
from imageworks.hardware.nvml import detect
print(json.dumps(dataclasses.asdict(detect())))
"""
Ask = Callable[[str | None], dict[str, Any]]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the built stand-in."""
    if shutil.which("gcc") is None:
        if os.environ.get("IMAGEWORKS_REQUIRE") == "all":
            pytest.fail("gcc is missing")
        pytest.skip("gcc is missing")
    folder = tmp_path_factory.mktemp("nvml")
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run(["gcc", *flags, "-o", str(folder / "libnvidia-ml.so.1"), str(SOURCE)], check=True)
    return folder


@pytest.fixture
def ask(library: Path, tmp_path: Path) -> Ask:
    """`detect()` in a process of its own, on a machine described by the state text; None: driver not loaded."""

    def run(state: str | None) -> dict[str, Any]:
        environ = {**os.environ, "LD_LIBRARY_PATH": str(library)}
        if state is not None:
            file = tmp_path / "state"
            file.write_text(state, "utf-8")
            environ["FAKE_NVML"] = str(file)
        done = subprocess.run([sys.executable, "-c", ASK], env=environ, check=True, capture_output=True, text=True)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return run
