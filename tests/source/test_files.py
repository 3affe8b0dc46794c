from __future__ import annotations

import os
from pathlib import Path

import pytest

from imageworks.diagnostics.model import Diagnostic
from imageworks.source.files import LARGEST_BYTES, DiskFiles, MemoryFiles, decode, unreadable


def refusal(files: DiskFiles | MemoryFiles, name: str) -> Diagnostic:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - any kind: its translation is the point
        files.read(name)
    return unreadable(name, caught.value)


def test_both_adapters_give_the_same(tmp_path: Path) -> None:
    (tmp_path / "p/base/app").mkdir(parents=True)
    (tmp_path / "p/base/app/x.yaml").write_text("é")
    (tmp_path / "stack.yaml").write_text("a: 1")
    memory = MemoryFiles({"p/base/app/x.yaml": "é", "stack.yaml": "a: 1"})
    for name in ("p/base/app/x.yaml", "stack.yaml"):
        assert DiskFiles(tmp_path).read(name) == memory.read(name)
    assert DiskFiles(tmp_path).names("p") == memory.names("p") == ("p/base/app/x.yaml",)
    assert DiskFiles(tmp_path).names("none") == memory.names("none") == ()


def test_a_missing_file_tells_how_to_get_one(tmp_path: Path) -> None:
    for files in (DiskFiles(tmp_path), MemoryFiles({})):
        found = refusal(files, "stack.yaml")
        assert found.code == "IW110"
        assert "imageworks init" in found.fixes[0].text


def test_a_folder_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "stack").mkdir()
    found = refusal(DiskFiles(tmp_path), "stack")
    assert (found.code, found.message) == ("IW111", "stack is a folder")


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    found = refusal(DiskFiles(tmp_path), "pipe")
    assert (found.code, found.message) == ("IW111", "pipe cannot be read: not a regular file")


def test_a_file_without_permission_is_refused() -> None:
    found = unreadable("stack.yaml", PermissionError(13, "Permission denied", "stack.yaml"))
    assert (found.code, found.message) == ("IW111", "stack.yaml cannot be read: permission denied")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)
    assert refusal(DiskFiles(tmp_path), "big").code == "IW112"
    assert refusal(MemoryFiles({"big": bytes(LARGEST_BYTES + 1)}), "big").code == "IW112"


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [(b"a: 1\nb: \xff\n", 2, 4), (b"a: \x00", 1, 4), ("é: \x1b[31m".encode(), 1, 4), (b"\xef\xbb\xbfa: \x7f", 1, 4)],
)
def test_what_is_no_text_is_told_with_its_place(data: bytes, line: int, column: int) -> None:
    source, found = decode("s", data)
    assert source is None
    assert [item.code for item in found] == ["IW105"]
    assert found[0].primary is not None
    assert (found[0].primary.span.line, found[0].primary.span.column) == (line, column)


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    source, found = decode("s", b"\xef\xbb\xbfa: 1")
    assert source is not None
    assert (source.text, found) == ("a: 1", ())
