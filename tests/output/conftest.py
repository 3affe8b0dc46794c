"""Two generations to go back and forth between, and what a folder holds."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from imageworks.targets.artifact import Artifact

Profiles = Mapping[str, tuple[Artifact, ...]]
Contents = Mapping[str, tuple[bytes, int]]


def _generation(word: str) -> dict[str, tuple[Artifact, ...]]:
    """Two profiles whose every file holds `word`; one file exists only in this generation."""
    files = (
        Artifact("../../supervisord.conf", "; the same for all\n"),
        Artifact("exec/x.json", f'{{"it": "{word}"}}\n'),
        Artifact("routes.json", f'{{"plan_hash": "{word}"}}\n'),
        Artifact(f"vllm/{word}.sh", f"#!/bin/sh\n# {word}\n", mode=0o755),
    )
    return {"big": files, "small": files[:3]}


def _contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below `folder` with its permission bits."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The output folder of a stack."""
    return tmp_path / "stack" / "generated"


@pytest.fixture
def generation() -> Callable[[str], Profiles]:
    """`generation(word)`: the artifacts of two profiles, `big` and `small`."""
    return _generation


@pytest.fixture
def contents() -> Callable[[Path], Contents]:
    """`contents(folder)`: bytes and permissions of every file in it."""
    return _contents


@pytest.fixture
def forbidden_folder() -> Iterator[Path]:
    """A folder that this process, for the time being nobody, may read but not write."""
    with tempfile.TemporaryDirectory(prefix="iw-") as name:
        folder = Path(name)
        root = os.geteuid() == 0
        folder.chmod(0o755 if root else 0o555)
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o755)
