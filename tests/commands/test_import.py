from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from imageworks.cli import run

HERE = Path(__file__).parents[1] / "importers"
CURATED, DISCOVERED = (str(HERE / "registry" / name) for name in ("curated.json", "discovered.json"))
CONFIG = str(HERE / "config.yaml")


def test_the_stack_goes_to_stdout_and_the_report_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", "registry", CURATED, DISCOVERED]) == 0
    seen = capsys.readouterr()
    assert "\nversion: 1\nmodels:\n" in seen.out
    assert "IW8" not in seen.out
    assert "IW804 note: qwen2.5vl_7b_(Q4_K_M) and qwen25vl_8.3b_(Q4_K_M) are one model" in seen.err


def test_a_new_file_is_written_and_checks_without_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "stack.yaml"
    assert run(["import", "llama-swap", CONFIG, "-o", str(out)]) == 0
    assert capsys.readouterr().out == ""
    assert run(["check", "-f", str(out)]) == 0


def test_a_registry_without_entries_is_not_told_as_one_whose_entries_were_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.json").write_text("{}")
    assert run(["import", "registry", str(tmp_path / "empty.json")]) == 1
    assert "there is no entry in it" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["file", "link"])
def test_nothing_that_is_there_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    out = tmp_path / "stack.yaml"
    if kind == "file":
        out.write_text("mine")
    else:
        out.symlink_to(tmp_path / "nowhere")
    assert run(["import", "llama-swap", CONFIG, "-o", str(out)]) == 1
    assert "IW810" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [out]
    assert kind == "link" or out.read_text() == "mine"


def test_the_report_as_json_needs_a_file_for_the_stack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", "llama-swap", CONFIG, "--format", "json"]) == 1
    capsys.readouterr()
    assert run(["import", "llama-swap", CONFIG, "--format", "json", "-o", str(tmp_path / "s.yaml")]) == 0
    seen = capsys.readouterr()
    assert {"IW801", "IW807", "IW421"} <= {item["code"] for item in json.loads(seen.out)}
    assert seen.err == ""


@pytest.mark.parametrize("data", [None, b"", b"\xff\xfe\x00", b"\x00" * 10, b"{}", b"a: [", b"[1, 2"])
@pytest.mark.parametrize("verb", ["registry", "llama-swap"])
def test_a_file_that_is_none_is_told_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, data: bytes | None
) -> None:
    source, out = tmp_path / "old", tmp_path / "stack.yaml"
    if data is not None:
        source.write_bytes(data)
    assert run(["import", verb, str(source), "-o", str(out)]) == 1
    assert re.match(r"IW(1|800)", capsys.readouterr().err)
    assert not out.exists()


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", "llama-swap", CONFIG, "-o", str(tmp_path / "no" / "stack.yaml")]) == 1
    assert "cannot write" in capsys.readouterr().err
