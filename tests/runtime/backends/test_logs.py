"""Which line of a log is shown as the root cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from imageworks.runtime.backends.logs import TAIL_BYTES, LifeLog, error_line, root_cause

VLLM = """(APIServer pid=1) INFO 11-22 10:00:00 [api.py:1] starting
(EngineCore pid=9) ERROR 11-22 10:00:09 [core.py:7] ValueError: Free memory on device (3.1/8.0 GiB) on startup is less than desired
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above."""


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ("0.00.1 I loading\n0.00.2 E failed to open GGUF file\n0.00.3 E exiting\nRuntimeError: Failed", "failed to open GGUF file"),
        ("noise\nerror: port 8001 is taken\n", "port 8001 is taken"),
        ("imageworks: error: model weights are missing: /x; get them: hf download a/b", "model weights are missing: /x; get them: hf download a/b"),
        (VLLM, "ValueError: Free memory on device (3.1/8.0 GiB) on startup is less than desired"),
        ("one\ntwo\n\n", "two"),
        ("", None),
    ],
)  # fmt: skip
def test_the_line_that_says_why_is_found(log: str, cause: str | None) -> None:
    assert root_cause(log) == cause


def test_a_log_without_an_error_gives_no_error_line() -> None:
    assert error_line("GET /v1/models 200\nall is well") is None


def test_only_the_life_that_just_ended_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("error: old\n")
    log = LifeLog(path)
    log.mark()
    with path.open("a") as file:
        file.write("error: new\n")
    assert log.text() == "error: new\n"


def test_a_rotated_log_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("x" * 100)
    log = LifeLog(path)
    log.mark()
    path.write_text("error: new\n")
    assert log.text() == "error: new\n"


def test_a_huge_or_binary_log_is_read_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LifeLog(path)
    assert log.text() == ""
    path.write_bytes(b"\xff" * (2 * TAIL_BYTES) + b"\nerror: end\n")
    assert error_line(log.text()) == "end"
