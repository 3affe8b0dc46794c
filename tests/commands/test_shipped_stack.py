"""The repository's own stack: what is committed under generated/ is what stack.yaml means, on any machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("stack.yaml", "models.lock", "prompts")


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def compiled_copy(folder: Path, **environ: str) -> Path:
    for name in SOURCES:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    subprocess.run(
        [sys.executable, "-m", "imageworks", "compile", "--all"],
        cwd=folder,
        env={**os.environ, **environ},
        check=True,
        capture_output=True,
        umask=0o077,
    )
    return folder / "generated"


def test_committed_files_equal_a_compile_elsewhere(tmp_path: Path) -> None:
    """Another folder, locale, hash seed, time zone and home give the same bytes."""
    generated = compiled_copy(
        tmp_path, PYTHONHASHSEED="1234", LC_ALL="C", TZ="Asia/Kathmandu", HOME=str(tmp_path), PYTHONUTF8="0"
    )
    assert tree(generated) == tree(ROOT / "generated")
    assert (tmp_path / "supervisord.conf").read_bytes() == (ROOT / "supervisord.conf").read_bytes()


def test_no_generated_file_names_this_machine() -> None:
    for name, content in tree(ROOT / "generated").items():
        assert str(ROOT).encode() not in content, name
        assert str(Path.home()).encode() + b"/" not in content, name
        assert sys.executable.encode() not in content, name
