"""`imageworks lease run` holds, renews and always releases; the desk is a stand-in for the proxy, the processes are real."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from imageworks.runtime import processes

Verb = Callable[..., tuple[int, str, str]]
LEASE: dict[str, Any] = {
    "lease_id": "l1",
    "token": 41,
    "tokens": {"GPU-a": 41},
    "gpus": ["GPU-a"],
    "slots": [0],
    "mib": 6144,
    "exclusive": False,
    "owner": "me",
    "reason": "",
    "state": "active",
    "ttl_s": 60.0,
    "expires_in_s": 60.0,
}
BUSY = {"error": {"message": "GPU 0 is held by trainer", "code": "gpu_busy", "hint": None}, "position": 1}


class Desk(ThreadingHTTPServer):
    """Answers lease calls as told; `calls` gets every one of them as (path, body)."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.calls: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.answers: dict[str, list[tuple[int, Any]]] = {}
        self.keys: list[str | None] = []
        super().__init__(("127.0.0.1", port), _Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def say(self, verb: str, *answers: tuple[int, Any]) -> None:
        """The next answers to a verb (the last path part); the last one stays."""
        self.answers[verb] = list(answers)

    def next(self, verb: str) -> Any:
        """The body of the next call of `verb`; others before it are dropped."""
        while True:
            path, body = self.calls.get(timeout=20)
            if path.rpartition("/")[2] == verb:
                return body

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Desk

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(body)

    def do_GET(self) -> None:
        self._answer(None)

    def _answer(self, body: object) -> None:
        verb = self.path.rpartition("/")[2]
        waiting = self.server.answers.get(verb, [(200, LEASE)])
        status, data = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        self.server.keys.append(self.headers["Authorization"])
        self.server.calls.put((self.path, body))
        text = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it that
        pass


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.close()


@pytest.fixture
def lease(desk: Desk) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`lease("run", …)` as a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "imageworks", "lease", words[0], "--url", desk.url, *words[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def run(*code: str) -> tuple[str, ...]:
    """Arguments that run Python code under a lease."""
    return ("run", "--vram", "6GiB", "--wait", "30s", "--", sys.executable, "-c", "\n".join(code))


FOREVER = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


def test_the_command_runs_under_the_lease_and_its_code_is_ours(desk: Desk, lease: Callable[..., Any]) -> None:
    process = lease(
        *run(
            "import os, sys",
            "print({k: v for k, v in os.environ.items() if k.startswith(('IMAGEWORKS_LEASE', 'CUDA', 'IMAGEWORKS_URL', 'SPT'))})",
            "sys.exit(7)",
        )
    )
    out, err = process.communicate(timeout=30)
    assert process.returncode == 7, err
    assert eval(out) == {
        "IMAGEWORKS_LEASE": "l1",
        "IMAGEWORKS_LEASE_TOKEN": "l1:41",
        "IMAGEWORKS_URL": desk.url,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "SPT_NOENV": "1",
        "CUDA_VISIBLE_DEVICES": "GPU-a",
    }
    asked = desk.next("lease")
    assert (asked["vram"], asked["exclusive"], asked["pid"], asked["wait_s"]) == ("6GiB", False, process.pid, 0)
    assert desk.next("release") == {"lease_id": "l1", "token": 41}


def test_options_of_the_command_are_the_commands(desk: Desk, verb: Verb) -> None:
    code, out, err = verb(
        "lease", "run", "--url", desk.url, "--vram", "1GiB", sys.executable, "-c", "pass", "--wait", "x"
    )
    assert (code, out) == (0, ""), err


def test_who_waits_in_vain_gets_75_and_hears_why(desk: Desk, verb: Verb) -> None:
    desk.say("lease", (409, BUSY))
    code, _, err = verb("lease", "run", "--url", desk.url, "--vram", "6GiB", "--wait", "0", "--", "true")
    assert code == 75
    assert "GPU 0 is held by trainer" in err


def test_a_wait_that_ends_well_runs_the_command(desk: Desk, verb: Verb) -> None:
    desk.say("lease", (409, BUSY), (200, LEASE))
    code, _, err = verb("lease", "run", "--url", desk.url, "--vram", "6GiB", "--wait", "90s", "--", "true")
    assert code == 0
    assert "waiting up to 90 s: GPU 0 is held by trainer" in err
    first, second = desk.next("lease"), desk.next("lease")
    assert (first["wait_s"], first["request_id"]) == (0, second["request_id"])
    assert 80 < second["wait_s"] <= 90


@pytest.mark.parametrize(
    ("status", "code"), [(400, 1), (422, 1), (503, 75)], ids=["invalid", "impossible", "not reconciled"]
)
def test_an_ask_that_cannot_be_met_runs_nothing(desk: Desk, verb: Verb, tmp_path: Path, status: int, code: int) -> None:
    desk.say("lease", (status, {"error": {"message": "no", "code": "x"}}))
    done = verb("lease", "run", "--url", desk.url, "--vram", "6GiB", "--wait", "0", "--", "touch", str(tmp_path / "x"))
    assert done[0] == code
    assert not (tmp_path / "x").exists()


def test_nobody_at_the_address_is_said_at_once(verb: Verb, free_ports: Callable[[int], tuple[int, ...]]) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    code, _, err = verb("lease", "run", "--url", url, "--vram", "6GiB", "--", "true")
    assert code == 1
    assert "the proxy does not answer at " in err
    assert "imageworks up" in err


def test_a_program_that_is_not_there_is_127_and_the_lease_is_given_back(desk: Desk, verb: Verb) -> None:
    code, _, err = verb("lease", "run", "--url", desk.url, "--vram", "6GiB", "--", "no-such-program-anywhere")
    assert (code, "program `no-such-program-anywhere` not found" in err) == (127, True)
    assert desk.next("release")["lease_id"] == "l1"


def test_the_lease_is_renewed_within_its_time(desk: Desk, lease: Callable[..., Any]) -> None:
    desk.say("lease", (200, LEASE | {"ttl_s": 1.5}))
    process = lease(*run(FOREVER))
    line(process)
    times = []
    for _ in range(4):
        assert desk.next("renew") == {"token": 41}
        times.append(time.monotonic())
    assert max(after - before for before, after in itertools.pairwise(times)) < 1.5
    process.terminate()
    assert process.wait(20) == 128 + signal.SIGTERM
    assert desk.next("release") == {"lease_id": "l1", "token": 41}


@pytest.mark.parametrize(
    ("status", "data"),
    [(410, {"error": {"message": "the token is stale"}}), (404, {"error": {}}), (200, LEASE | {"state": "reclaiming"})],
)
def test_a_lost_lease_ends_the_command_also_one_that_does_not_listen(
    desk: Desk, lease: Callable[..., Any], status: int, data: object
) -> None:
    desk.say("lease", (200, LEASE | {"ttl_s": 0.3}))
    desk.say("renew", (status, data))
    process = lease(*run(FOREVER))
    child = int(line(process))
    assert process.wait(30) == 128 + signal.SIGTERM
    assert processes.identity(child) is None
    assert process.stderr is not None
    assert "the lease is lost" in process.stderr.read()


def test_a_command_that_ends_well_although_its_lease_was_lost_is_no_success(
    desk: Desk, lease: Callable[..., Any]
) -> None:
    desk.say("lease", (200, LEASE | {"ttl_s": 0.3}))
    desk.say("renew", (410, {"error": {}}))
    process = lease(
        *run(
            "import signal, sys, time",
            "signal.signal(15, lambda *_: sys.exit(0))",
            "print(1, flush=True)",
            "time.sleep(60)",
        )
    )
    line(process)
    assert process.wait(30) == 1


def test_a_proxy_that_restarts_is_waited_for(
    lease: Callable[..., Any], free_ports: Callable[[int], tuple[int, ...]]
) -> None:
    port = free_ports(1)[0]
    first = Desk(port)
    first.say("lease", (200, LEASE | {"ttl_s": 0.3}))
    process = lease("run", "--url", first.url, *run(FOREVER)[1:])
    child = int(line(process))
    first.close()
    assert process.stderr is not None
    assert "asking again" in process.stderr.readline()
    second = Desk(port)
    second.say("renew", (200, LEASE | {"ttl_s": 0.3}))
    assert second.next("renew") == {"token": 41}
    assert processes.identity(child) is not None
    process.send_signal(signal.SIGTERM)
    assert second.next("release")["lease_id"] == "l1"
    process.wait(20)
    second.close()


def test_kill_of_the_wrapper_takes_the_command_with_it(lease: Callable[..., Any]) -> None:
    process = lease(*run("import signal", "signal.signal(15, signal.SIG_IGN)", FOREVER))
    child = processes.identity(int(line(process)))
    assert child is not None
    process.kill()
    assert processes.wait_gone([child], time.monotonic() + 20)


def test_kill_of_the_command_releases_and_ends_what_it_left(desk: Desk, lease: Callable[..., Any]) -> None:
    process = lease(
        *run(
            "import os, subprocess, sys, time",
            "c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True, stdout=-3, stderr=-3)",
            "print(os.getpid(), c.pid, flush=True)",
            "time.sleep(600)",
        )
    )
    child, grandchild = map(int, line(process).split())
    left = processes.identity(grandchild)
    assert left is not None
    os.kill(child, signal.SIGKILL)
    assert process.wait(20) == 128 + signal.SIGKILL
    assert not processes.alive(left)
    assert desk.next("release") == {"lease_id": "l1", "token": 41}


def test_ctrl_c_reaches_the_command_and_the_lease_is_given_back(desk: Desk, lease: Callable[..., Any]) -> None:
    process = lease(
        *run(
            "import os, time", "try:", " print(1, flush=True); time.sleep(600)", "except KeyboardInterrupt: os._exit(9)"
        )
    )
    line(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 9
    assert desk.next("release")["lease_id"] == "l1"


def test_the_single_verbs_say_what_the_proxy_says(desk: Desk, verb: Verb) -> None:
    at = ("--url", desk.url)
    code, out, _ = verb(
        "lease", "acquire", *at, "--vram", "6GiB", "--wait", "0", "--gpu", "0", "--gpu", "GPU-b", "--ttl", "2m"
    )
    assert (code, json.loads(out)) == (0, LEASE)
    asked = desk.next("lease")
    assert (asked["gpus"], asked["ttl_s"]) == ([0, "GPU-b"], 120.0)
    assert "pid" not in asked
    for words, path, body in (
        (("renew", "l1:41"), "/v1/gpu/lease/l1/renew", {"token": 41}),
        (("release", "l1:41"), "/v1/gpu/release", {"lease_id": "l1", "token": 41}),
    ):
        assert verb("lease", *words, *at)[0] == 0
        assert desk.calls.get(timeout=5) == (path, body)
    for word, field in (("force", "lease_id"), ("pardon", "holder")):
        assert verb("lease", word, "l1", *at)[0] == 0
        _, body = desk.calls.get(timeout=5)
        assert body[field] == "l1"
        assert "@" in body["actor"]
    desk.say("release", (410, {"error": {"message": "token 41 is stale", "hint": None}}))
    code, _, err = verb("lease", "release", "l1:41", *at)
    assert (code, "token 41 is stale" in err) == (1, True)


def test_a_key_of_the_environment_is_shown(desk: Desk, verb: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGEWORKS_KEY", raising=False)
    assert verb("lease", "renew", "l1:41", "--url", desk.url)[0] == 0
    monkeypatch.setenv("IMAGEWORKS_KEY", "s3cret")
    assert verb("lease", "renew", "l1:41", "--url", desk.url)[0] == 0
    assert desk.keys == [None, "Bearer s3cret"]


def test_a_proxy_that_wants_a_key_is_told_with_our_variable(desk: Desk, verb: Verb) -> None:
    desk.say("status", (401, {"error": {"message": "this proxy wants a key", "hint": "Authorization: Bearer KEY"}}))
    code, _, err = verb("lease", "list", "--url", desk.url)
    assert code == 1
    assert "export IMAGEWORKS_KEY=" in err


def test_the_list_shows_gpus_leases_and_who_waits(desk: Desk, verb: Verb) -> None:
    gpu = {
        "slot": 0,
        "uuid": "GPU-a",
        "budget_mib": 23000,
        "free_mib": 1000,
        "used_mib": 9000,
        "holders": [{"id": "qwen", "kind": "model", "mib": 9000, "state": "ready"}],
    }
    waiting = [{"position": 1, "owner": "you", "mib": 500}]
    desk.say("status", (200, {"gpus": [gpu], "leases": [LEASE], "waiting": waiting}))
    code, out, _ = verb("lease", "list", "--url", desk.url)
    assert code == 0
    assert out.splitlines() == [
        "GPU 0 GPU-a: 1000 of 23000 MiB free, 9000 measured",
        "      9000 MiB  model qwen (ready)",
        "lease l1: me, shared, 6144 MiB on GPU-a, active, 60 s left",
        "waiting 1: you, 500 MiB",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("renew", "l1"),
        ("release", "l1:x"),
        ("run", "--vram", "1GiB", "--wait", "soon", "--", "true"),
        ("run", "--", "true"),
    ],
)
def test_a_mistake_on_the_command_line_asks_nobody(desk: Desk, verb: Verb, words: tuple[str, ...]) -> None:
    assert verb("lease", *words[:1], "--url", desk.url, *words[1:])[0] == 1
    with contextlib.suppress(queue.Empty):
        raise AssertionError(desk.calls.get_nowait())
