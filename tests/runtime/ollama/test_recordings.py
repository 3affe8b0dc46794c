"""What a real Ollama said, byte by byte: through our translation, beside its own OpenAI endpoint, and beside the stand-in.

`tests/tools/record_ollama.py` recorded it: `ollama/chat-X` answers what the proxy makes of the request of `ollama-X`.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from imageworks.runtime.ollama import request
from imageworks.runtime.ollama.answer import BrokenError, Translation, error

STANDIN = Path(__file__).parents[2] / "tools" / "ollama_standin.py"
OWN = Path(__file__).parents[2] / "data" / "recordings"
NATIVE = OWN / "ollama"
LONG = "a message longer than the context"


class Answer(NamedTuple):
    """Of an engine; status 0 where the connection ended without one."""

    status: int
    content_type: str
    body: bytes


def meta(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text("utf-8"))
    return found


def recorded(folder: Path, name: str) -> Answer:
    head, _, rest = (folder / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    headers = {key.lower(): value for key, _, value in (field.partition(": ") for field in fields)}
    if headers.get("transfer-encoding") == "chunked":
        whole = b""
        while size := int(rest.partition(b"\r\n")[0], 16):
            rest = rest.partition(b"\r\n")[2]
            whole, rest = whole + rest[:size], rest[size + 2 :]
        rest = whole
    return Answer(int(line.split(" ")[1]), headers.get("content-type", ""), rest)


NAMES = sorted(path.stem for path in NATIVE.glob("*.http"))
CHATS = [n for n in NAMES if meta(NATIVE, n)["endpoint"] == "api/chat" and recorded(NATIVE, n).status == 200]
TALKS = [name for name in CHATS if meta(NATIVE, name)["request"]["messages"]]
PAIRS = [n for n in NAMES if (OWN / f"ollama-{n.removeprefix('chat-')}.http").exists() and n.startswith("chat-")]


def translated(name: str, size: int) -> bytes:
    answer = recorded(NATIVE, name)
    made = Translation(
        "chatcmpl-1", 7, meta(NATIVE, name)["request"]["model"], stream="ndjson" in answer.content_type, usage=True
    )
    pieces = [answer.body[at : at + size] for at in range(0, len(answer.body), size)]
    return b"".join([*(event for piece in pieces for event in made.feed(piece)), *made.end()])


def frames(text: bytes) -> list[dict[str, Any]]:
    """OpenAI's objects: the events of a stream, or the one."""
    if not text.startswith(b"data: "):
        return [json.loads(text)]
    *events, last, end = text.split(b"\n\n")
    assert (last, end) == (b"data: [DONE]", b"")
    return [json.loads(event.removeprefix(b"data: ")) for event in events]


def heard(text: bytes) -> dict[str, Any]:
    """What a client makes of OpenAI's."""
    found: dict[str, Any] = {"content": "", "reasoning": "", "tool_calls": [], "finish_reason": None, "logprobs": []}
    for frame in frames(text):
        found["usage"] = frame.get("usage") or found.get("usage")
        for choice in frame["choices"]:
            said = choice.get("delta") or choice.get("message") or {}
            found["content"] += said.get("content") or ""
            found["reasoning"] += said.get("reasoning") or ""
            found["finish_reason"] = choice["finish_reason"] or found["finish_reason"]
            found["logprobs"] += (choice.get("logprobs") or {}).get("content", [])
            for call in said.get("tool_calls", ()):
                assert call["index"] == len(found["tool_calls"])
                assert call["type"] == "function"
                found["tool_calls"].append(call["function"])
    return found


def told(body: bytes) -> dict[str, Any]:
    """The same of Ollama's own words."""
    lines = [json.loads(line) for line in body.splitlines() if line]
    messages, last = [line["message"] for line in lines], lines[-1]
    calls = [call["function"] for message in messages for call in message.get("tool_calls", ())]
    ends = "tool_calls" if calls and last["done_reason"] == "stop" else last["done_reason"]
    return {
        "content": "".join(message["content"] for message in messages),
        "reasoning": "".join(message.get("thinking", "") for message in messages),
        "tool_calls": [{"name": call["name"], "arguments": call["arguments"]} for call in calls],
        "finish_reason": ends,
        "logprobs": [token for line in lines for token in line.get("logprobs", ())],
        "usage": {
            "prompt_tokens": last["prompt_eval_count"],
            "completion_tokens": last["eval_count"],
            "total_tokens": last["prompt_eval_count"] + last["eval_count"],
        },
    }


def read(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": call["name"], "arguments": json.loads(call["arguments"])} for call in calls]


def test_there_is_something_of_each_kind() -> None:
    kinds = [told(recorded(NATIVE, name).body) for name in TALKS]
    assert any(len(kind["tool_calls"]) == 2 for kind in kinds)
    assert any(kind["reasoning"] for kind in kinds)
    assert any(kind["logprobs"] for kind in kinds)
    assert any("é" in kind["content"] for kind in kinds)
    assert {kind["finish_reason"] for kind in kinds} == {"stop", "length", "tool_calls"}
    assert len(PAIRS) > 10


@pytest.mark.parametrize("size", [1, 1 << 20], ids=["byte by byte", "at once"])
@pytest.mark.parametrize("name", TALKS)
def test_all_that_it_says_comes_through(name: str, size: int) -> None:
    found = heard(translated(name, size))
    assert {**found, "tool_calls": read(found["tool_calls"])} == told(recorded(NATIVE, name).body)
    if expects := meta(NATIVE, name).get("expects"):
        assert {field: found[field] for field in expects} == expects


@pytest.mark.parametrize("name", PAIRS)
def test_it_is_what_ollamas_own_endpoint_makes_of_it(name: str) -> None:
    own = recorded(OWN, f"ollama-{name.removeprefix('chat-')}")
    if own.status != 200:
        ours = recorded(NATIVE, name)
        assert ours.status == own.status
        assert json.loads(error(ours.status, ours.body)) == json.loads(own.body)
        return
    text = translated(name, 1 << 20)
    assert heard(text) == heard(own.body)
    assert shapes(frames(text)) == shapes(frames(own.body))


@pytest.mark.parametrize("name", PAIRS)
def test_what_was_asked_is_what_the_proxy_asks(name: str) -> None:
    """Ollama took each field of it, where it refuses none (`strange-field`): this keeps the two recordings one question."""
    asked = meta(OWN, f"ollama-{name.removeprefix('chat-')}")["request"]
    assert json.loads(request.chat(json.dumps(asked).encode())) == meta(NATIVE, name)["request"]


@pytest.mark.parametrize("name", [name for name in NAMES if recorded(NATIVE, name).status >= 400])
def test_an_error_of_its_own_is_told(name: str) -> None:
    answer = recorded(NATIVE, name)
    found = json.loads(error(answer.status, answer.body))["error"]
    plain = answer.body.decode()
    said = json.loads(plain)["error"] if "json" in answer.content_type else plain
    if said.startswith("{"):  # llama-server's, in Ollama's own
        said = json.loads(said)["error"]["message"]
    assert found["message"] == said
    assert found["type"] == {400: "invalid_request_error", 404: "not_found_error"}.get(answer.status, "api_error")


def test_an_answer_cut_short_is_broken() -> None:
    body = recorded(NATIVE, "chat-tools-stream").body
    made = Translation("chatcmpl-1", 7, "hermes", stream=True, usage=False)
    list(made.feed(body[: body.rindex(b'"done":true')]))
    with pytest.raises(BrokenError):
        list(made.end())


def shapes(value: Any, path: str = "") -> set[str]:
    """Each key with the type of its value; a list's items are one."""
    if isinstance(value, dict):
        return {each for key, one in value.items() for each in shapes(one, f"{path}.{key}")} or {f"{path}: object"}
    if isinstance(value, list):
        return {each for one in value for each in shapes(one, f"{path}[]")} or {f"{path}: list"}
    names = {bool: "boolean", int: "number", float: "number", str: "text", type(None): "null"}
    return {f"{path}: {names[type(value)]}"}


def shape(answer: Answer) -> set[str]:
    if "json" not in answer.content_type:
        return {f"text {answer.body.decode()!r}"}
    return shapes([json.loads(line) for line in answer.body.splitlines() if line])


def differences(real: Answer, ours: Answer) -> set[str]:
    found = {f"Ollama has {each}" for each in shape(real) - shape(ours)}
    found |= {f"the stand-in has {each}" for each in shape(ours) - shape(real)}
    for field in ("status", "content_type"):
        if getattr(real, field) != getattr(ours, field):
            found.add(f"{field}: Ollama {getattr(real, field)}, the stand-in {getattr(ours, field)}")
    return found


CHECK = "the stand-in refuses what Ollama passes over, so that it is never sent"
MISFIT = "the stand-in tells all misfits as one error of the request; Ollama finds those in options while it loads"
BARE = "what nothing of ours reads is left out"
NEVER = "never asked of it: it knows the routes that are"
CHARSET = "one content type serves all its JSON; nothing of ours looks at a success's"
REFUSED = {
    "status: Ollama 200, the stand-in 400": CHECK,
    "the stand-in has *.error: text": CHECK,
    "Ollama has *": CHECK,
}
JSON = {"content_type: Ollama application/json, the stand-in application/json; charset=utf-8": CHARSET}
LATE = {"status: Ollama 500, the stand-in 400": MISFIT}
ALLOWED: dict[str, dict[str, str]] = {
    "tags": {"Ollama has *": NEVER, "the stand-in has *.version: text": NEVER},
    "models": JSON | {"Ollama has *": NEVER, "the stand-in has *.version: text": NEVER},
    "show": {"Ollama has *": BARE, "the stand-in has *.details: object": BARE},
    "ps": {f"Ollama has *.models[[]].{field}": BARE for field in ("context_length: number", "details.*", "expires_at: text")},
    "create": JSON,
    "strange-create": JSON | REFUSED,
    "generate": {"Ollama has *": "it loads and unloads; texts are not asked of this route"},
    "chat-unload": {"content_type: *": "chats unload nothing of ours; it streams what a test tells it to say"},
    "strange-field": REFUSED,
    "strange-option": REFUSED,
    "error-option": LATE,
    "error-stop": LATE,
    "error-format": LATE | JSON,
    "error-create-no-from": JSON,
}  # fmt: skip
"""Form of a difference -> why it may be."""


class Daemon:
    """The stand-in as a process."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port, self.folder = port, folder
        self.process = subprocess.Popen(
            [sys.executable, str(STANDIN), str(port), str(folder)], stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return
        raise TimeoutError

    def ask(self, name: str) -> Answer:
        """What was asked of Ollama."""
        asked = meta(NATIVE, name)
        body = asked["request"]
        sent = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            line.request(asked["method"], f"/{asked['endpoint']}", sent)
            answer = line.getresponse()
            return Answer(answer.status, answer.headers.get("Content-Type", ""), answer.read())
        except (http.client.HTTPException, ConnectionError):
            return Answer(0, "", b"")
        finally:
            line.close()

    def write(self, file: str, value: object) -> None:
        (self.folder / file).write_text(json.dumps(value))


@pytest.fixture(scope="module")
def daemon(
    tmp_path_factory: pytest.TempPathFactory, module_ports: Callable[[int], tuple[int, ...]]
) -> Iterator[Daemon]:
    made = Daemon(module_ports(1)[0], tmp_path_factory.mktemp("ollama"))
    yield made
    made.process.terminate()
    made.process.wait()


def lines(name: str) -> list[str]:
    return [line for line in recorded(NATIVE, name).body.decode().splitlines() if line]


@pytest.mark.parametrize("name", [n for n in NAMES if meta(NATIVE, n)["request"] != LONG])
def test_the_stand_in_answers_as_ollama_does(daemon: Daemon, name: str) -> None:
    """Chats say what the test put in their mouth: here what Ollama said."""
    real = recorded(NATIVE, name)
    says = name in CHATS or name in PAIRS or name in SAID
    daemon.write("knobs.json", {"chat": lines(name) if says else [], "chat_status": real.status if says else 200})
    daemon.write("ledger.json", {} if name == "ps-empty" else {"small:latest": 200})
    allowed = ALLOWED.get(name, {})
    found = differences(real, daemon.ask(name))
    assert [each for each in sorted(found) if not any(fnmatchcase(each, form) for form in allowed)] == []
    assert [form for form in allowed if not any(fnmatchcase(each, form) for each in found)] == []


SAID = ("error-cannot-think", "error-no-model", "error-no-body")
"""Errors that Ollama finds where the stand-in looks at nothing: a test says that it is to give them."""


@pytest.mark.parametrize(
    ("ours", "found"),
    [
        (Answer(200, "application/json", b'{"a": 1, "b": []}'), set()),
        (Answer(400, "application/json", b'{"a": 1, "b": []}'), {"status: Ollama 200, the stand-in 400"}),
        (Answer(200, "application/json", b'{"a": 1}'), {"Ollama has [].b: list"}),
        (Answer(200, "application/json", b'{"a": "1", "b": []}'), {"Ollama has [].a: number", "the stand-in has [].a: text"}),
        (Answer(200, "application/json", b'{"a": 1, "b": [], "c": null}'), {"the stand-in has [].c: null"}),
    ],
)  # fmt: skip
def test_a_difference_is_seen(ours: Answer, found: set[str]) -> None:
    assert differences(Answer(200, "application/json", b'{"a": 2.5, "b": []}'), ours) == found
