"""`imageworks ask` against answers of every kind, from a real HTTP server on the loopback interface."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from .conftest import Verb


class Canned(BaseHTTPRequestHandler):
    """Answers every POST with what the test put into the server, and keeps the body."""

    def do_POST(self) -> None:
        server: Any = self.server
        server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        status, body = server.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Any]:
    made: Any = HTTPServer(("127.0.0.1", 0), Canned)
    made.asked, made.answer = [], (200, b"")
    made.url = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def stream(*texts: str, end: bytes = b"data: [DONE]\n\n") -> bytes:
    chunks = [json.dumps({"choices": [{"delta": {"content": text}}]}) for text in texts]
    return b": waiting\n\n" + b"".join(b"data: " + chunk.encode() + b"\n\n" for chunk in chunks) + end


def test_the_pieces_of_the_answer_are_printed(server: Any, verb: Verb) -> None:
    server.answer = 200, stream("Hel", "lo ", "漢")
    code, out, _ = verb("ask", "hi", "--url", server.url)
    assert (code, out) == (0, "Hello 漢\n")
    assert server.asked == [{"model": "role:chat", "messages": [{"role": "user", "content": "hi"}], "stream": True}]


def test_an_image_goes_along_as_data_and_asks_the_caption_role(server: Any, verb: Verb, tmp_path: Path) -> None:
    server.answer = 200, stream("a cat")
    picture = tmp_path / "cat.png"
    picture.write_bytes(b"\x89PNG")
    assert verb("ask", "what?", "--image", str(picture), "--url", server.url)[0] == 0
    (asked,) = server.asked
    assert asked["model"] == "role:caption"
    assert asked["messages"][0]["content"][0]["image_url"]["url"] == "data:image/png;base64,iVBORw=="


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, b'{"error": {"message": "No model found: x", "hint": "did you mean y?"}}', "did you mean y?"),
        (401, b'{"error": {"message": "wants a key", "hint": "Authorization: Bearer KEY"}}', "export IMAGEWORKS_KEY="),
        (502, b"<html>bad gateway</html>", "HTTP 502"),
        (200, stream("half", end=b""), "ended early"),
        (200, b'data: {"error": {"message": "the engine died"}}\n\n', "the engine died"),
    ],
)
def test_a_failure_is_told_and_is_exit_1(server: Any, verb: Verb, status: int, body: bytes, expected: str) -> None:
    server.answer = status, body
    code, _, err = verb("ask", "hi", "--url", server.url)
    assert code == 1
    assert expected in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--image", "missing.png"), "missing.png"),
        (("--image", __file__), "no JPEG, PNG or WebP"),
        (("--role", "a", "--model", "b"), "exclude each other"),
        (("--url", "ftp://x"), "no http address"),
        (("--url", "https://x"), "no http address"),
        (("--url", "http://127.0.0.1:99999"), "no http address"),
        (("--url", "http://[::1"), "no http address"),
        (("--url", ""), "no http address"),
    ],
)
def test_a_wrong_word_is_told_before_anything_is_sent(verb: Verb, words: tuple[str, ...], expected: str) -> None:
    code, _, err = verb("ask", "hi", *words)
    assert code == 1
    assert expected in err
