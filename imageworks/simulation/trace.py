"""What was asked of the models, and when: from recorded request records, or made up for a well-known job.

Owns the reading of `requests.jsonl` lines (research: each line one request) as jobs, and the generated personal-tagger
trace. A record without a model or with an unknown one is left out and counted.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

SERVICE_S = 1.0
TAGGER = ("caption", "keywords", "description")


@dataclass(frozen=True, slots=True)
class Job:
    """One request: when it came (seconds from the first), for which models, best first, and how long it was served."""

    at: float
    models: tuple[str, ...]
    service_s: float


@dataclass(frozen=True, slots=True)
class Trace:
    """Jobs in the order of their arrival. `skipped` lines told no model that is known."""

    jobs: tuple[Job, ...]
    skipped: int = 0


def read(lines: Iterable[bytes], models: Container[str]) -> Trace:
    """The jobs of request records. Raises ValueError with the line's number for a line that is none."""
    found, skipped = [], 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            job = _job(json.loads(line), models)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"line {number} is no request record") from None
        if job is None:
            skipped += 1
        else:
            found.append(job)
    found.sort(key=lambda job: job.at)
    first = found[0].at if found else 0.0
    return Trace(tuple(Job(job.at - first, job.models, job.service_s) for job in found), skipped)


def _job(record: Mapping[str, Any], models: Container[str]) -> Job | None:
    if record["model"] not in models or record["t"]["total_ms"] is None or record["t"]["queue_ms"] is None:
        return None
    service_s = max(0.0, float(record["t"]["total_ms"]) - float(record["t"]["queue_ms"])) / 1000
    return Job(datetime.fromisoformat(record["ts"]).timestamp(), (record["model"],), service_s)


def personal_tagger(images: int, models: tuple[str, ...], every_s: float) -> Trace:
    """Caption, keywords and description of each image, one image each `every_s` seconds, interleaved as clients send them."""
    return Trace(
        tuple(Job(image * every_s, (model,), SERVICE_S) for image in range(images) for model in models[: len(TAGGER)])
    )


def record(job: Job, number: int) -> str:
    """A job as a line of request records, as far as a replay reads it."""
    stamp = datetime.fromtimestamp(1_767_225_600 + job.at).astimezone().isoformat()
    times = {"queue_ms": 0.0, "total_ms": job.service_s * 1000}
    return json.dumps({"schema": 1, "ts": stamp, "record_id": f"job-{number}", "model": job.models[0], "t": times})
