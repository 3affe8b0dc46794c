"""The line of a request: the template writes what the record says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imageworks.runtime.errors import ApiError
from imageworks.runtime.journal import Journal
from imageworks.runtime.request import parse, shape

Make = Callable[..., Any]
MOMENTS = st.floats(0, 1e6).map(lambda seconds: round(seconds, 6))
COUNTS = st.none() | st.integers(0, 10**9)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    started=st.floats(0, 4e9),
    spans=st.lists(st.floats(0, 1000), min_size=4, max_size=4),
    usage=st.fixed_dictionaries({"prompt_tokens": COUNTS, "completion_tokens": COUNTS}) | st.none(),
    reason=st.none() | st.text(max_size=5),
    asked=st.dictionaries(st.sampled_from(["temperature", "top_p", "seed", "max_tokens"]), st.integers(0, 9) | st.floats(0, 2)),
    role=st.none() | st.sampled_from(["chat", "100% \u00e9"]),
    warm=st.booleans(),
    images=st.integers(0, 3),
)  # fmt: skip
def test_the_template_writes_what_the_record_says(  # noqa: PLR0917 - hypothesis passes them by name
    route: Make, table: Make, started: float, spans: list[float], usage: Any, reason: str | None, asked: Any, role: str | None, *, warm: bool, images: int
) -> None:  # fmt: skip
    made = route("a")
    begin = 100.0
    request = parse("chat/completions", json.dumps({"model": "a", **asked}).encode())
    journal = Journal("r-1", begin=begin, started=started, role=role, route=made, images=images, warm=warm)
    journal.shaped = shape(request, made, None)
    journal.granted, journal.sent = begin + spans[0], begin + spans[0] + spans[1]
    journal.first = journal.sent + spans[2]
    journal.end = journal.first + spans[3]
    journal.answer = json.dumps({"choices": [{"finish_reason": reason}], "usage": usage}).encode()
    facts = table(made)
    line = json.loads(journal.line(facts, None))
    record = json.loads(msgspec.json.encode(journal.record(facts, journal.facts(), None)))
    assert list(line) == list(record)
    times, expected = line.pop("t"), record.pop("t")
    assert times.keys() == expected.keys()
    assert [times[name] for name in times if times[name] is not None] == pytest.approx(
        [expected[name] for name in times if times[name] is not None], abs=0.00051
    )
    assert line == record


def test_a_request_that_failed_has_its_error(table: Make) -> None:
    journal = Journal("r-1")
    journal.close()
    line = json.loads(journal.line(table(), ApiError(404, "model_not_found", "no")))
    assert (line["outcome"], line["error"]) == ("invalid", {"type": "model_not_found", "status": 404})
    assert line["t"]["total_ms"] >= 0
    assert line["t"]["queue_ms"] is None
