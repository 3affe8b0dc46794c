"""Every case of `cases`, over a raw socket, on both speeds and both event loops."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SPEC = importlib.util.spec_from_file_location("wire_cases", Path(__file__).with_name("cases.py"))
assert SPEC is not None
assert SPEC.loader is not None
cases = importlib.util.module_from_spec(SPEC)
sys.modules["wire_cases"] = cases
SPEC.loader.exec_module(cases)


def test_there_are_enough_cases_and_each_has_its_name() -> None:
    names = [case.name for case in cases.CASES]
    assert len(set(names)) == len(names) >= 150


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: str(case.name))
def test_every_case_gets_its_answer_and_no_more_reaches_an_engine(bed: Any, wire: Callable[[], Any], case: Any) -> None:
    bed.engine.requests.clear()
    line = wire()
    line.send(case.send)
    found: list[int] = []
    for wanted in case.status:
        response = line.response(case.method)
        assert response is not None, f"{len(found)} responses, then the connection ended"
        found.append(response.status)
        assert response.whole
        assert response.status in (wanted if isinstance(wanted, tuple) else (wanted,)), (found, response.body)
        if response.status >= 400 and case.method != "HEAD":
            assert response.body.startswith(b'{"error":{"message":"')
            assert response.fields["x-request-id"]
    if case.open:
        assert line.open()
    else:
        assert line.response() is None
    assert len(bed.engine.requests) <= case.upstream
    if case.upstream and case.status[-1] == 200:
        assert len(bed.engine.requests) == case.upstream
    if case.sees:
        assert case.sees in bed.engine.requests[-1]
