"""Four real llama.cpp models in one group that starts in parallel: healthy together, working together, healing alone."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from imageworks.runtime import processes

from .conftest import SMOLLM2, StackFolder, eventually

pytestmark = pytest.mark.e2e
NAMES = ("one", "two", "three", "four")
INTERVAL_S = 30.0
"""The default of `defaults.health_check_interval`."""


@pytest.fixture
def group(stack: StackFolder, free_ports: Callable[[int], tuple[int, ...]]) -> StackFolder:
    models = "".join(
        f"""  {name}:
    backend: llamacpp
    source: {SMOLLM2 if place == 0 else "{same_as: one}"}
    context: 1024
    placement: cpu
    roles: {{chat: {20 - place}}}
    pin: {{port: {{value: {port}, because: "tests choose free ports"}}}}
"""
        for place, (name, port) in enumerate(zip(NAMES, free_ports(len(NAMES)), strict=True))
    )
    (stack.folder / "stack.yaml").write_text(
        f"""version: 1
name: e2e
profiles:
  development: {{strategy: concurrent_full, max_concurrent_models: 4}}
models:
{models}
groups:
  quartet: {{models: [{", ".join(NAMES)}], profiles: [development], startup: parallel}}
proxy: {{bind: "127.0.0.1:{stack.port}"}}
""",
        encoding="utf-8",
    )
    done = stack.run("up", "-d")
    assert done.returncode == 0, done.stderr
    return stack


def health(stack: StackFolder) -> dict[str, str]:
    _, answer = stack.get("/v1/models/health")
    return {row["model"]: row["health"] for row in answer["models"]}


def ask(stack: StackFolder, model: str, tokens: int = 48) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=120)
    body = {"model": model, "max_tokens": tokens, "messages": [{"role": "user", "content": "Count to twenty."}]}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def pid_of(stack: StackFolder, model: str) -> int:
    found = processes.recorded(Path(stack.folder))[f"model-{model}"]
    return found.pid


def spans(stack: StackFolder) -> list[tuple[float, float]]:
    """Begin and end of the recorded requests, in seconds."""
    rows = [row for row in stack.records() if row["success"]]
    begins = [datetime.fromisoformat(row["ts"]).timestamp() for row in rows]
    return [(begin, begin + row["t"]["total_ms"] / 1000) for begin, row in zip(begins, rows, strict=True)]


def test_four_models_are_healthy_work_at_the_same_time_and_one_that_is_killed_heals_while_the_others_serve(
    group: StackFolder,
) -> None:
    # all are loaded without a request, and looked at
    eventually(lambda: group.get("/v1/models/health")[1]["healthy"] == 4, "four healthy models")
    assert health(group) == dict.fromkeys(NAMES, "healthy")
    assert group.get("/v1/models/health")[1]["interval_s"] == INTERVAL_S

    # the machine is found to be in order, with every port in our own hands
    findings = json.loads(group.run("doctor", "--format", "json").stdout)["findings"]
    ours = {
        row["check"]: row for row in findings if row["check"] in ("ports", "supervisor", "proxy", "models", "leftovers")
    }
    assert {check: row["level"] for check, row in ours.items()} == dict.fromkeys(("ports", "supervisor", "proxy"), "ok")
    assert ours["ports"]["found"] == "5 in use by this stack, 0 free"
    assert ours["proxy"]["found"] == f"answers at {group.url}, 4 healthy models"

    # one request to each, at once: the records show that they overlapped
    answers: list[int] = []
    clients = [threading.Thread(target=lambda name=name: answers.append(ask(group, name)[0])) for name in NAMES]
    for client in clients:
        client.start()
    for client in clients:
        client.join(120)
    assert answers == [200] * 4
    eventually(lambda: len(spans(group)) == 4, "four records")
    assert max(begin for begin, _ in spans(group)) < min(end for _, end in spans(group)), spans(group)

    # one is killed: it comes back by itself, and the others never stop serving
    before = {name: pid_of(group, name) for name in NAMES}
    os.kill(before["two"], signal.SIGKILL)
    killed = time.monotonic()
    seen = set()
    while health(group)["two"] in ("healthy", "unknown") and time.monotonic() < killed + INTERVAL_S:
        assert ask(group, "one", 4)[0] == 200
    while (state := health(group)["two"]) != "healthy":
        seen.add(state)
        assert time.monotonic() < killed + INTERVAL_S, f"not back within the health interval: {seen}"
        assert [ask(group, name, 4)[0] for name in NAMES if name != "two"] == [200] * 3
    assert seen, "its death was noticed"
    after = {name: pid_of(group, name) for name in NAMES}
    assert {name for name in NAMES if before[name] != after[name]} == {"two"}
    assert ask(group, "two", 4)[0] == 200
