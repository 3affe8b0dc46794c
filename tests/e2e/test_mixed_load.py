"""Two real models that take turns in one place, under 200 mixed requests: answered, fair, and as the simulator says.

How many loads a trace needs depends on who was there when a choice was made. So the first model is held still
(SIGSTOP) until all 200 have arrived: from then on the order of grants, and with it the loads, follows from the order of
arrival alone, whatever the machine's speed, and must be exactly what the very scheduler does under virtual time with the
recorded trace and the measured times.
"""

from __future__ import annotations

import http.client
import json
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pytest

from imageworks.runtime import processes
from imageworks.runtime.residency import Machine, machine
from imageworks.runtime.table import load
from imageworks.simulation.replay import replay
from imageworks.simulation.trace import read

from .conftest import StackFolder, eventually

pytestmark = pytest.mark.e2e
MODELS = ("small", "small-long")
REQUESTS, SEED, OVERTAKES = 200, 4, 32


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as the client sends it."""

    model: str
    stream: bool
    tokens: int

    @property
    def body(self) -> bytes:
        """It as JSON."""
        words = {"model": self.model, "stream": self.stream, "max_tokens": self.tokens}
        return json.dumps({**words, "messages": [{"role": "user", "content": "Say hello."}]}).encode()


def mixed() -> list[Asked]:
    """The same 200 each time: both models, streams and whole answers, one to four tokens."""
    draw = random.Random(SEED)
    return [Asked(draw.choice(MODELS), draw.random() < 0.5, draw.randint(1, 4)) for _ in range(REQUESTS)]


def send(stack: StackFolder, number: int, asked: Asked) -> http.client.HTTPConnection:
    """Ask, and leave the answer for later; the record will bear the number."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=120)
    headers = {"Content-Type": "application/json", "X-Request-Id": f"mixed-{number:03}"}
    connection.request("POST", "/v1/chat/completions", asked.body, headers)
    return connection


def answer(connection: http.client.HTTPConnection, asked: Asked) -> str:
    """`whole`, or what came instead."""
    try:
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    ended = body.rstrip().endswith(b"data: [DONE]") if asked.stream else b'"choices"' in body
    return "whole" if response.status == http.HTTPStatus.OK and ended else f"{response.status}: {body!r}"


def present(stack: StackFolder) -> int:
    """How many requests are served or wait."""
    return sum(row["inflight"] + row["waiting"] for row in stack.get("/running")[1]["running"])


@contextmanager
def held_still(stack: StackFolder, model: str) -> Iterator[None]:
    """Meanwhile the model's processes do nothing."""
    tree = processes.tree(processes.recorded(stack.folder)[f"model-{model}"].pid)
    for process in tree:
        processes.send(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in tree:
            processes.send(process, signal.SIGCONT)


class Moves:
    """The transition log, followed from its beginning."""

    def __init__(self, stack: StackFolder) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=120)
        self._connection.request("GET", "/v1/gpu/events", headers={"Last-Event-ID": "0-0"})
        self._response = self._connection.getresponse()
        self.seen: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        while line := self._response.readline():
            if line.startswith(b"data: {") and (moved := json.loads(line[6:])):
                self.seen.append(moved)

    def join(self) -> None:
        """Wait for the proxy's end."""
        self._thread.join(60)
        self._connection.close()

    def times(self, residency: str, model: str) -> list[float]:
        """When the model came into `residency`."""
        return [moved["at"] for moved in self.seen if (moved["subject"], moved["after"]) == (model, residency)]


def in_order(stack: StackFolder) -> list[dict[str, Any]]:
    """The records in the order of arrival, which the clients know: several may have come within a millisecond."""
    return sorted(stack.records(), key=lambda row: str(row["record_id"]))


def granted(row: dict[str, Any]) -> float:
    """When it was granted, to a millisecond: grants of two models are a load apart."""
    return float(datetime.fromisoformat(row["ts"]).timestamp() + row["t"]["queue_ms"] / 1000)


def most_late(rows: Sequence[dict[str, Any]]) -> int:
    """By how many places somebody was served after their turn: younger ones served before, less older ones served after.

    Requests for one model are served in their order; so only those for the other count, whose grants are a load apart.
    """
    times = [(granted(row), row["model"]) for row in rows]

    def late(place: int) -> int:
        now, own = times[place]
        before = sum(when < now for when, model in times[place:] if model != own)
        return before - sum(when > now for when, model in times[:place] if model != own)

    return max(late(place) for place in range(len(times)))


def predicted(stack: StackFolder, moves: Moves) -> tuple[Machine, dict[str, float]]:
    """The compiled machine, and how long each model took to load on average."""
    found = machine(load(stack.folder / "generated" / "development" / "routes.json"))
    load_s = {}
    for model in MODELS:
        begun, ready = moves.times("starting", model), moves.times("ready", model)
        load_s[model] = sum(end - begin for begin, end in zip(begun, ready, strict=True)) / len(ready)
    return found, load_s


@pytest.fixture
def one_place(stack: StackFolder) -> StackFolder:
    stack.write(extra=f"leases: {{min_residency: 0s, max_overtakes: {OVERTAKES}}}")
    done = stack.run("up", "-d")
    assert done.returncode == 0, done.stderr
    return stack


def test_two_hundred_mixed_requests_are_answered_fairly_with_the_loads_that_the_simulator_predicts(
    one_place: StackFolder,
) -> None:
    stack, trace = one_place, mixed()
    moves = Moves(stack)
    first = replace(trace[0], model=MODELS[0])
    assert answer(send(stack, 0, first), first) == "whole"
    connections = []
    with held_still(stack, MODELS[0]):
        for number, asked in enumerate(trace, 1):
            connections.append(send(stack, number, asked))
            eventually(lambda number=number: present(stack) == number, f"request {number} is in")  # type: ignore[misc]

    # every request is answered, in full
    answers = Counter(answer(*each) for each in zip(connections, trace, strict=True))
    assert answers == {"whole": REQUESTS}
    eventually(lambda: len(stack.records()) == REQUESTS + 1, "a record of each")
    loads = sum(len(moves.times("starting", model)) for model in MODELS)
    card, load_s = predicted(stack, moves)
    stack.run("down")
    moves.join()

    # nobody was served later after their turn than promised
    rows = in_order(stack)
    assert [row["model"] for row in rows] == [first.model, *(asked.model for asked in trace)]
    worst = most_late(rows)
    assert 0 < worst <= OVERTAKES

    # and the loads are the simulator's, as is the worst that happened to anybody
    recorded = read([json.dumps(row).encode() for row in rows], card.specs)
    assert (len(recorded.jobs), recorded.skipped) == (REQUESTS + 1, 0)
    report = replay(card, "ours", recorded.jobs, load_s)
    assert (loads, worst) == (report.loads, report.most_late)
    assert 5 * loads < replay(card, "fifo", recorded.jobs, load_s).loads, "a trace in which order matters"
