"""Health is the right plan at the right address: somebody else's readiness does not count."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imageworks.commands.here import PROXY
from imageworks.commands.kept import Generation
from imageworks.commands.rollout import RolloutError, until_healthy
from imageworks.commands.running import ProgramInfo, Running


class Proxy(Running):
    """A supervisord whose proxy is in one state."""

    state = "RUNNING"

    def programs(self) -> tuple[ProgramInfo, ...]:
        return (ProgramInfo(PROXY, self.state, 1, 1, ""),)


class Answer(http.server.BaseHTTPRequestHandler):
    """Ready, with the plan `new`."""

    def do_GET(self) -> None:
        body = json.dumps({"ready": True, "reason": None, "plan_hash": "new"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def generation(plan_hash: str, port: int) -> Generation:
    return Generation(Path(), {"plan_hash": plan_hash, "proxy": {"host": "127.0.0.1", "port": port}}, {}, "")


def test_the_new_plan_is_healthy(tmp_path: Path, port: int) -> None:
    until_healthy(Proxy(tmp_path), generation("new", port), 10)


def test_another_plan_is_not(tmp_path: Path, port: int) -> None:
    with pytest.raises(RolloutError, match=r"not healthy within 0\.2 s"):
        until_healthy(Proxy(tmp_path), generation("old", port), 0.2)


def test_a_proxy_that_ended_is_not_waited_for(tmp_path: Path, port: int) -> None:
    running = Proxy(tmp_path)
    running.state = "FATAL"
    with pytest.raises(RolloutError, match="does not start"):
        until_healthy(running, generation("old", port), 600)
