"""The request log: field names, one line per record, rotation."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import msgspec
import pytest

from imageworks.runtime import records
from imageworks.runtime.records import RecordLog, RequestRecord, append, rotate

FIELDS = """schema, ts, record_id, trace_id, span_id, git_sha, stack_hash, registry_version, bundle_hash, prompt_id,
prompt_version, prompt_hash, stage, role, profile, experiment, model, backend, backend_revision, params, images, tokens, t,
out_tok_per_s, finish_reason, outcome, success, markers, error, retry_of, warm, content_ref, client, dropped, normalised"""


def record(number: int = 0) -> RequestRecord:
    return RequestRecord(
        ts="2026-11-22T10:00:00Z", record_id=f"r{number}", stack_hash="p", bundle_hash="b", profile="dev"
    )


def test_the_field_names_are_the_agreed_ones() -> None:
    line = json.loads(msgspec.json.encode(record()))
    assert set(line) == set(FIELDS.replace("\n", " ").split(", "))
    assert set(line["params"]) == {"max_tokens", "temperature", "top_p", "seed"}
    assert set(line["tokens"]) == {"in", "cached", "out", "reasoning", "source"}
    assert set(line["t"]) == {"queue_ms", "ttft_client_ms", "ttft_proxy_ms", "ttft_engine_ms", "itl_ms", "total_ms"}
    assert set(line["images"]) == {"n", "tokens", "shrunk"}
    assert line["tokens"]["in"] is None


def test_every_record_handed_over_is_a_line_after_close(tmp_path: Path) -> None:
    path = tmp_path / "log" / "requests.jsonl"
    log = RecordLog(path)
    for number in range(500):
        log.write(record(number))
    log.close()
    assert [json.loads(line)["record_id"] for line in path.read_text().splitlines()] == [
        f"r{number}" for number in range(500)
    ]


def test_a_record_that_cannot_be_made_harms_nobody_who_hands_it_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> bytes:
        raise ValueError

    path = tmp_path / "requests.jsonl"
    log = RecordLog(path)
    log.write(broken)
    log.write(record())
    log.close()
    assert len(path.read_text().splitlines()) == 1
    assert "a request record cannot be made" in caplog.text


def test_a_line_is_made_before_write_returns(tmp_path: Path) -> None:
    """On the thread of who hands it over: a second thread that makes lines takes the interpreter from all streams."""
    made: list[int] = []

    def line() -> bytes:
        made.append(threading.get_ident())
        return b"{}"

    log = RecordLog(tmp_path / "requests.jsonl")
    log.write(line)
    assert made == [threading.get_ident()]
    log.close()


def test_a_disk_that_refuses_loses_the_record_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "log").write_text("a file where the folder should be")
    log = RecordLog(tmp_path / "log" / "requests.jsonl")
    log.write(record())
    log.close()
    assert "a request record is lost" in caplog.text


def test_a_full_file_makes_room_and_three_old_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    for number in range(6):
        path.write_text(str(number))
        rotate(path, limit=1)
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"requests.jsonl.{number}" for number in (1, 2, 3)]
    assert (tmp_path / "requests.jsonl.1").read_text() == "5"
    assert (tmp_path / "requests.jsonl.3").read_text() == "3"


def test_a_file_below_the_limit_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "requests.jsonl"
    monkeypatch.setattr(records, "ROTATE_BYTES", 5)
    append(path, b"one\n")
    append(path, b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"
    append(path, b"new\n")
    assert path.read_bytes() == b"new\n"
