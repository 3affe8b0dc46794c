"""An engine's answer arrives byte for byte, whichever way it goes and however it was cut."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SPEC = importlib.util.spec_from_file_location("wire_corpus", Path(__file__).with_name("corpus.py"))
assert SPEC is not None
assert SPEC.loader is not None
corpus = importlib.util.module_from_spec(SPEC)
sys.modules["wire_corpus"] = corpus
SPEC.loader.exec_module(corpus)

NEVER = {"server", "connection", "keep-alive", "x-powered-by"}


def ask(stream: bool, user: str) -> bytes:  # noqa: FBT001 - a field of the request
    body = json.dumps({"model": "small", "stream": stream, "user": user, "messages": []}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nx-request-id: r-1\r\n\r\n"
    return head % len(body) + body


@pytest.mark.parametrize("answer", corpus.ANSWERS, ids=lambda answer: str(answer.name))
def test_the_body_is_the_engines_own(bed: Any, wire: Callable[[], Any], answer: Any) -> None:
    steps = (*answer.wire(), *(("drop",) if answer.framing == "close" else ()))
    bed.engine.scripts["corpus"] = Script(steps)
    line = wire()
    for _ in range(2):
        line.send(ask(answer.stream, "corpus"))
        response = line.response()
        assert response is not None
        assert response.whole
        assert response.status == int(answer.status[:3])
        assert response.body == answer.body
        assert response.fields["content-type"] == answer.kind.decode().partition("\r\n")[0]
        assert response.fields["x-imageworks-model"] == "small"
        assert response.fields["x-request-id"] == "r-1"
        assert not NEVER & response.fields.keys()
        assert ("x-should-retry" in response.fields) == (response.status >= 500)
    assert line.open()


class Script:
    """As the bed's own."""

    def __init__(self, steps: tuple[object, ...]) -> None:
        self.steps = steps


@pytest.mark.parametrize("answer", corpus.ANSWERS, ids=lambda answer: str(answer.name))
def test_both_speeds_answer_alike(beds: tuple[Any, Any], connect_to: Callable[[Any], Any], answer: Any) -> None:
    steps = (*answer.wire(), *(("drop",) if answer.framing == "close" else ()))
    found = []
    for bed in beds:
        bed.engine.scripts["corpus"] = Script(steps)
        line = connect_to(bed)
        line.send(ask(answer.stream, "corpus"))
        response = line.response()
        found.append((response.status, response.body, {**response.fields, "date": ""}, strip(bed.engine.requests[-1])))
    assert found[0] == found[1]


def strip(request: bytes) -> tuple[list[bytes], bytes]:
    """What an engine sees, without what names the way it came."""
    head, _, body = request.partition(b"\r\n\r\n")
    lines = sorted(each.lower() for each in head.split(b"\r\n"))
    return [each for each in lines if not each.startswith((b"host:", b"user-agent:", b"accept:", b"connection:"))], body
