"""One line per request in `{state}/log/requests.jsonl`.

Owns the record's field names (final: research/prompts-telemetry.md 5.1) and the writer. What is not known is
null, never 0; prompts and images are not recorded. The file grows to ROTATE_BYTES and KEEP old ones stay.
The file is written on a thread of its own, so that a slow disk never delays an answer.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

LOG = logging.getLogger(__name__)
RECORD_SCHEMA = 1
ROTATE_BYTES = 64 << 20
KEEP = 3
GATHER_S = 0.02

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
    shrunk: int | None = None


class Dropped(msgspec.Struct, frozen=True):
    """What a history policy left out."""

    messages: int
    images: int


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
    """One request. `ts` is UTC in RFC 3339; `stack_hash` is the plan's hash; `warm`: the model was loaded already. `normalised`: tool calls that were text."""

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
    client: str | None = None
    dropped: Dropped | None = None
    normalised: int | None = None


Made = RequestRecord | Callable[[], bytes]


class RecordLog:
    """Appends records on its own thread; `close` writes what is left.

    Records of GATHER_S are written together: a busy proxy wakes the thread 50 times a second, not for every request.
    The line is made by who hands it over: a thread that makes hundreds of them takes the interpreter from all streams.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: deque[bytes] = deque()
        self._some, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self._thread.start()

    def write(self, record: Made) -> None:
        """Hand a record over, or a function that makes its line; does not wait for the disk. One that cannot be made is logged."""
        try:
            self._waiting.append(record() if callable(record) else msgspec.json.encode(record))
        except Exception:
            LOG.exception("a request record cannot be made")
            return
        if not self._some.is_set():
            self._some.set()

    def close(self) -> None:
        """Write what was handed over, then end."""
        self._closed.set()
        self._some.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._some.wait()
            self._closed.wait(GATHER_S)
            self._some.clear()
            self._write_waiting()
        self._write_waiting()  # what came between the last look and the end

    def _write_waiting(self) -> None:
        lines = []
        while self._waiting:
            lines.append(self._waiting.popleft())
        if lines:
            try:
                append(self._path, b"\n".join([*lines, b""]))
            except OSError as error:
                LOG.warning("a request record is lost: %s (%d of them)", error, len(lines))


def append(path: Path, lines: bytes) -> None:
    """Add whole lines with a single O_APPEND write, after rotating a full file. Raises OSError."""
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    rotate(path, ROTATE_BYTES)
    with path.open("ab", buffering=0) as file:
        file.write(lines)


def rotate(path: Path, limit: int) -> None:
    """Move `path` to `path.1`, `.1` to `.2` … when it has reached `limit` bytes; the oldest is dropped."""
    if not path.exists() or path.stat().st_size < limit:
        return
    for number in range(KEEP, 0, -1):
        older = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
        with contextlib.suppress(FileNotFoundError):
            older.replace(path.with_name(f"{path.name}.{number}"))
