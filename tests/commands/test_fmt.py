from __future__ import annotations

from pathlib import Path

from .conftest import Verb

UNEVEN = "version: 1\nmodels:\n    m:  # größer\n          backend: vllm  \n\n\n"
EVEN = "version: 1\nmodels:\n  m:  # größer\n    backend: vllm\n"


def test_a_file_is_laid_out_and_then_stays(folder: Path, verb: Verb) -> None:
    file = folder / "stack.yaml"
    file.write_text("\ufeff" + UNEVEN, "utf-8")
    code, out, err = verb("fmt")
    assert (code, out, err) == (0, "", "formatted stack.yaml\n")
    assert file.read_text("utf-8") == EVEN
    assert verb("fmt") == (0, "", "")


def test_check_writes_nothing_and_exits_2(folder: Path, verb: Verb) -> None:
    file = folder / "stack.yaml"
    file.write_text(UNEVEN, "utf-8")
    code, _, err = verb("fmt", "--check")
    assert code == 2
    assert "run: imageworks fmt stack.yaml" in err
    assert file.read_text("utf-8") == UNEVEN


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_laid_out(folder: Path, verb: Verb) -> None:
    (folder / "a.yaml").write_text("a: [\n", "utf-8")
    (folder / "b.yaml").write_text("b:   1\n\n", "utf-8")
    (folder / "c.yaml").write_bytes(b"\xff")
    code, _, err = verb("fmt", "a.yaml", "b.yaml", "c.yaml", "d.yaml")
    assert code == 1
    assert [word for word in ("IW100", "IW105", "IW110", "formatted b.yaml") if word not in err] == []
    assert (folder / "a.yaml").read_text("utf-8") == "a: [\n"
    assert (folder / "b.yaml").read_text("utf-8") == "b:   1\n"
