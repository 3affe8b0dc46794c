"""The proxy as a process: real supervisord, real signals, real exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from supervisor.xmlrpc import SupervisorTransport

from imageworks.contract import ROUTES_SCHEMA, to_json

Make = Callable[..., Any]
SERVE = "import sys; from pathlib import Path; from imageworks.runtime.start import serve; sys.exit(serve(Path(sys.argv[1]), Path(sys.argv[2]), 'supervisord'))"


def command(routes: Path, stack: Path) -> list[str]:
    return [sys.executable, "-c", SERVE, str(routes), str(stack)]


@contextmanager
def serving(stack: Path, table: Any) -> Iterator[subprocess.Popen[bytes]]:
    routes = stack / "routes.json"
    routes.write_text(to_json(table))
    with (
        (stack / "proxy.log").open("ab") as log,
        subprocess.Popen(command(routes, stack), stdout=log, stderr=log) as process,
    ):
        try:
            wait_until(lambda: get(table, "/readyz") is not None)
            yield process
        finally:
            process.kill()


def wait_until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def get(table: Any, path: str) -> Any:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{table.proxy.port}{path}", timeout=20) as answer:
            return json.load(answer)
    except (urllib.error.URLError, ConnectionError):
        return None


def ask(table: Any, model: str) -> str:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]}).encode()
    url = f"http://127.0.0.1:{table.proxy.port}/v1/chat/completions"
    with urllib.request.urlopen(url, data=body, timeout=20) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


def pid_of(stack: Path, program: str) -> int:
    transport = SupervisorTransport(None, None, f"unix://{stack}/.imageworks/run/supervisor.sock")
    server = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
    try:
        info = server.supervisor.getProcessInfo(program)
        assert isinstance(info, dict)
        return int(info["pid"]) if info["statename"] in ("STARTING", "RUNNING") else 0
    finally:
        server("close")()


def test_first_request_starts_kill_heals_and_a_new_proxy_adopts(
    stack: Path, supervisord: Make, route: Make, table: Make, free_ports: Make
) -> None:
    engine, port = free_ports(2)
    supervisord({"a": (engine, "serve")})
    made = table(route("a", engine), port=port)
    with serving(stack, made) as process:
        assert pid_of(stack, "model-a") == 0
        assert ask(made, "a") == "I am served-a"
        first = pid_of(stack, "model-a")
        os.kill(first, signal.SIGKILL)
        assert ask(made, "a") == "I am served-a"
        second = pid_of(stack, "model-a")
        assert second not in (0, first)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    records = (stack / ".imageworks/log/requests.jsonl").read_text().splitlines()
    assert [json.loads(line)["outcome"] for line in records] == ["ok", "ok"]
    assert pid_of(stack, "model-a") == second
    with serving(stack, made):
        assert get(made, "/running")["running"][0]["state"] == "ready"
        assert ask(made, "a") == "I am served-a"
        assert pid_of(stack, "model-a") == second


def test_a_death_without_a_request_is_noticed(
    stack: Path, supervisord: Make, route: Make, table: Make, free_ports: Make
) -> None:
    engine, port = free_ports(2)
    supervisord({"a": (engine, "serve")})
    made = table(route("a", engine), port=port)
    with serving(stack, made):
        ask(made, "a")
        os.kill(pid_of(stack, "model-a"), signal.SIGKILL)
        wait_until(lambda: get(made, "/running")["running"][0]["state"] == "failed")
        assert "ended by itself" in get(made, "/running")["running"][0]["reason"]


def test_a_model_without_work_is_unloaded_after_its_grace(
    stack: Path, supervisord: Make, route: Make, table: Make, free_ports: Make
) -> None:
    engine, port = free_ports(2)
    supervisord({"a": (engine, "serve")})
    made = table(route("a", engine, grace_s=0.2), port=port)
    with serving(stack, made):
        ask(made, "a")
        wait_until(lambda: pid_of(stack, "model-a") == 0)


def start(routes: Path, stack: Path) -> tuple[int, str]:
    done = subprocess.run(command(routes, stack), capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr


def test_a_taken_port_is_one_line_that_says_what_to_do(stack: Path, route: Make, table: Make, free_ports: Make) -> None:
    (port,) = free_ports(1)
    made = table(route("a"), port=port)
    with serving(stack, made):
        code, said = start(stack / "routes.json", stack)
    assert code == 1
    assert (
        said
        == f"imageworks: error: 127.0.0.1:{port} is taken by another program; end it, or change proxy.bind in stack.yaml and compile\n"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such file or directory; run: imageworks compile"),
        ("{", "routes.json cannot be read"),
        ('{"a": 1}', "carries no schema number"),
        (f'{{"schema": {ROUTES_SCHEMA + 1}}}', "written by a newer ImageWorks"),
        (f'{{"schema": {ROUTES_SCHEMA}}}', "missing required field"),
    ],
)
def test_a_routing_table_that_cannot_be_used_is_one_line(stack: Path, text: str | None, says: str) -> None:
    routes = stack / "routes.json"
    if text is not None:
        routes.write_text(text)
    code, said = start(routes, stack)
    assert (code, said.count("\n")) == (1, 1)
    assert says in said


def test_an_address_that_others_can_reach_is_refused(stack: Path, route: Make, table: Make, free_ports: Make) -> None:
    (port,) = free_ports(1)
    (stack / "routes.json").write_text(to_json(table(route("a"), host="0.0.0.0", port=port)))
    code, said = start(stack / "routes.json", stack)
    assert (code, said.count("\n")) == (1, 1)
    assert "open to the network, and no key is declared" in said
