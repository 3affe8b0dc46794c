"""One line per request in `{state}/log/requests.jsonl`.

Owns the record's field names (final: research/prompts-telemetry.md 5.1) and the writer. What is not known is
null, never 0; prompts and images are not recorded. The file grows to ROTATE_BYTES and KEEP old ones stay.
Writing happens on a thread of its own, so that a slow disk never delays an answer.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from pathlib import Path
from typing import Literal

import msgspec

LOG = logging.getLogger(__name__)
RECORD_SCHEMA = 1
ROTATE_BYTES = 64 << 20
KEEP = 3

Outcome = Literal["ok", "refused", "invalid", "truncated", "timeout", "client_abort", "backend_error"]


class Params(msgspec.Struct, frozen=True):
    """Parameters as sent to the engine."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None


class Images(msgspec.Struct, frozen=True):
    """Images of the request."""

    n: int | None = None
    tokens: int | None = None


class Tokens(msgspec.Struct, frozen=True, rename={"in_": "in"}):
    """Tokens as the engine counts them."""

    in_: int | None = None
    cached: int | None = None
    out: int | None = None
    reasoning: int | None = None
    source: Literal["usage", "tokenizer", "unknown"] = "unknown"


class Times(msgspec.Struct, frozen=True):
    """Durations in milliseconds on the monotonic clock, from the arrival of the request's head."""

    queue_ms: float | None = None
    ttft_client_ms: float | None = None
    ttft_proxy_ms: float | None = None
    ttft_engine_ms: float | None = None
    itl_ms: float | None = None
    total_ms: float | None = None


class Failure(msgspec.Struct, frozen=True):
    """The error a client saw."""

    type: str
    status: int


class RequestRecord(msgspec.Struct, frozen=True):
    """One request. `ts` is UTC in RFC 3339; `stack_hash` is the plan's hash; `warm`: the model was loaded already."""

    ts: str
    record_id: str
    stack_hash: str
    bundle_hash: str
    profile: str
    role: str | None = None
    model: str | None = None
    backend: str | None = None
    outcome: Outcome = "ok"
    success: bool = True
    schema: int = RECORD_SCHEMA
    trace_id: str | None = None
    span_id: str | None = None
    git_sha: str | None = None
    registry_version: str | None = None
    prompt_id: str | None = None
    prompt_version: str | None = None
    prompt_hash: str | None = None
    stage: str | None = None
    experiment: dict[str, str] | None = None
    backend_revision: str | None = None
    params: Params = Params()
    images: Images = Images()
    tokens: Tokens = Tokens()
    t: Times = Times()
    out_tok_per_s: float | None = None
    finish_reason: str | None = None
    markers: list[str] | None = None
    error: Failure | None = None
    retry_of: str | None = None
    warm: bool | None = None
    content_ref: str | None = None


class RecordLog:
    """Appends records on its own thread; `close` writes what is left."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: queue.SimpleQueue[RequestRecord | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self._thread.start()

    def write(self, record: RequestRecord) -> None:
        """Hand a record over; returns at once."""
        self._lines.put(record)

    def close(self) -> None:
        """Write what was handed over, then end."""
        self._lines.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (record := self._lines.get()) is not None:
            try:
                append(self._path, msgspec.json.encode(record) + b"\n")
            except OSError as error:
                LOG.warning("a request record is lost: %s", error)


def append(path: Path, line: bytes) -> None:
    """Add one line with a single O_APPEND write, after rotating a full file. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    rotate(path, ROTATE_BYTES)
    with path.open("ab", buffering=0) as file:
        file.write(line)


def rotate(path: Path, limit: int) -> None:
    """Move `path` to `path.1`, `.1` to `.2` … when it has reached `limit` bytes; the oldest is dropped."""
    if not path.exists() or path.stat().st_size < limit:
        return
    for number in range(KEEP, 0, -1):
        older = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
        with contextlib.suppress(FileNotFoundError):
            older.replace(path.with_name(f"{path.name}.{number}"))
