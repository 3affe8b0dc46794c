"""`imageworks doctor`: what it finds on a real machine, with real ports, processes and sockets."""

from __future__ import annotations

import http.server
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imageworks import locations
from imageworks.commands.doctor import examine, line, summary
from imageworks.commands.examine import gpus, machine, ports, proxy, supervision, versions
from imageworks.commands.examine.finding import Finding
from imageworks.commands.running import ProgramInfo
from imageworks.commands.status import residency
from imageworks.hardware.nvml import Detection, Gpu

CARD = Gpu("GPU-1", "NVIDIA RTX A4000", 16 << 30, (8, 6))
Make = Callable[..., Any]


def table(proxy_port: int, **routes: dict[str, Any]) -> dict[str, Any]:
    facts = {"backend": "llamacpp", "program": "model-a"}
    return {
        "proxy": {"host": "127.0.0.1", "port": proxy_port},
        "roots": {},
        "routes": {name: facts | route for name, route in routes.items()},
    }


def started(folder: Path, found: dict[str, Any]) -> None:
    """As the launcher leaves it when the proxy was started."""
    generated = folder / "generated" / "development"
    (generated / "exec").mkdir(parents=True)
    (generated / "routes.json").write_text(json.dumps(found))
    run = locations.run_dir(folder)
    run.mkdir(parents=True)
    word = {"file": str(generated / "exec" / "imageworks-proxy.json")}
    locations.started_file(folder, "imageworks-proxy").write_text(json.dumps(word))


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def levels(found: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.check, finding.level) for finding in found]


# the verb


def test_a_fresh_folder_is_sound(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "imageworks", "doctor", "--format", "json"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "IMAGEWORKS_STORE": str(tmp_path / "store")},
    )  # fmt: skip
    answer = json.loads(done.stdout)
    errors = [finding for finding in answer["findings"] if finding["level"] == "error"]
    assert (done.returncode, answer["ok"]) == ((1, False) if errors else (0, True)), done.stderr
    assert {finding["check"] for finding in answer["findings"]} >= {
        "gpu",
        "supervisor",
        "ports",
        "disk",
        "limits",
        "versions",
    }
    assert not any(tmp_path.iterdir()), "it only looks"


def test_an_error_is_exit_1_with_what_to_do(tmp_path: Path, listener: int) -> None:
    started(tmp_path, table(listener))
    done = subprocess.run(
        [sys.executable, "-m", "imageworks", "doctor"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert f"error    ports: port {listener} of the proxy is taken by pid {os.getpid()} (" in done.stdout
    assert "= end it, or give the proxy another port (proxy.bind)" in done.stdout


def test_every_finding_that_is_not_in_order_says_what_to_do(tmp_path: Path, listener: int) -> None:
    started(tmp_path, table(listener))
    assert all(finding.todo for finding in examine(tmp_path) if finding.level != "ok")


def test_a_finding_is_told_with_its_remedy_on_a_line_of_its_own() -> None:
    assert line(Finding("disk", "warning", "full", "make room")).splitlines()[1].strip() == "= make room"
    found = (
        Finding("a", "error", ""),
        Finding("b", "warning", ""),
        Finding("c", "warning", ""),
        Finding("d", "ok", ""),
    )
    assert summary(found) == "1 error, 2 warnings"


# ports


def test_free_ports_and_ports_of_our_own_processes_are_in_order(tmp_path: Path, free_ports: Make) -> None:
    first, second = free_ports(2)
    code = f"import socket, sys; s = socket.create_server(('127.0.0.1', {second})); print('here', flush=True); sys.stdin.read()"
    environ = {**os.environ, "IMAGEWORKS_STACK": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as ours:
        assert ours.stdout is not None
        ours.stdout.readline()
        found = list(ports.check(tmp_path, table(first, a={"url": f"http://127.0.0.1:{second}"})))
        assert [(each.level, each.found) for each in found] == [("ok", "1 in use by this stack, 1 free")]
        ours.communicate()


def test_a_server_that_is_not_ours_has_no_port_to_look_at(tmp_path: Path, listener: int, free_ports: Make) -> None:
    found = table(free_ports(1)[0], a={"url": f"http://127.0.0.1:{listener}", "program": None})
    assert levels(list(ports.check(tmp_path, found))) == [("ports", "ok")]


# supervision


def test_a_socket_of_a_dead_supervisor_is_told(tmp_path: Path) -> None:
    locations.run_dir(tmp_path).mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(locations.control_socket(tmp_path)))
    (found,) = supervision.check(tmp_path)
    assert (found.level, found.found) == ("ok", "does not run; a socket of a dead one is left")


def test_a_supervisor_that_listens_and_answers_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "ASK_S", 0.2)
    locations.run_dir(tmp_path).mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(locations.control_socket(tmp_path)))
        server.listen()
        found = list(supervision.check(tmp_path))
    assert [each.level for each in found] == ["error"]
    assert "does not answer" in found[0].found


def test_a_path_that_is_too_long_for_a_socket_is_an_error(tmp_path: Path) -> None:
    (found,) = supervision.check(tmp_path / ("x" * 120))
    assert found.level == "error"
    assert "107 fit" in found.found


def test_programs_that_supervisord_gave_up_are_told_with_their_log() -> None:
    class Supervised:
        def programs(self) -> tuple[ProgramInfo, ...]:
            states = ("RUNNING", "FATAL", "BACKOFF", "STOPPED")
            return tuple(ProgramInfo(f"model-{state[0].lower()}", state, 1, 0, "as it says") for state in states)

        def pid(self) -> int:
            return 7

    found = list(supervision.programs(Supervised()))  # type: ignore[arg-type]
    assert [(each.level, each.found) for each in found] == [
        ("error", "model-f is FATAL: as it says"),
        ("warning", "model-b is BACKOFF: as it says"),
        ("ok", "pid 7, 1 of 4 programs run"),
    ]
    assert found[0].todo == "imageworks logs model-f"


def test_processes_that_outlived_their_supervisor_are_named(tmp_path: Path) -> None:
    environ = {**os.environ, "IMAGEWORKS_STACK": str(tmp_path), "IMAGEWORKS_PROGRAM": "model-a"}
    code = "import sys; print('here', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as left:
        assert left.stdout is not None
        left.stdout.readline()
        found = list(supervision.check(tmp_path))
        assert [each.found for each in found if each.level == "error"] == [
            f"model-a (pid {left.pid}) runs without its supervisor"
        ]
        assert list(supervision.leftovers(tmp_path, (os.getpid(),))) == [], "one that is supervised is no leftover"
        left.communicate()


def test_a_process_of_a_unit_is_no_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not supervision.of_unit(os.getpid(), "model-a")
    group = "0::/system.slice/imageworks.slice/model-a.service\n"  # no test starts a real init system
    monkeypatch.setattr(Path, "read_text", lambda _path, _encoding: group)
    assert supervision.of_unit(1, "model-a")
    assert not supervision.of_unit(1, "model-b")
    del tmp_path


# the proxy


def test_what_the_proxy_says_of_itself_and_its_models_is_told() -> None:
    rows = [
        {"model": "a", "health": "healthy", "reason": None},
        {"model": "b", "health": "failed", "reason": "no such file"},
        {"model": "c", "health": "quarantined", "reason": "held by pid 7"},
        {"model": "d", "health": "stopped", "reason": None},
    ]
    answers = {"/readyz": {"ready": True, "degraded": ["GPU 1 is lost"]}, "/v1/models/health": {"models": rows}}
    found = list(proxy.check("http://x", lambda _url, path: answers[path]))
    assert [(each.level, each.found) for each in found] == [
        ("warning", "GPU 1 is lost"),
        ("warning", "b is failed: no such file"),
        ("error", "c is quarantined: held by pid 7"),
    ]
    answers["/readyz"] = {"ready": True, "degraded": []}
    assert (
        list(proxy.check("http://x", lambda _url, path: answers[path]))[-1].found
        == "answers at http://x, 1 healthy models"
    )


@pytest.fixture
def guarded() -> Iterator[int]:
    """The port of a proxy that answers only who shows the key `good`, but says to all that it is ready."""

    class Guarded(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/readyz" or self.headers["Authorization"] == "Bearer good"
            self.send_response(200 if known else 401)
            self.end_headers()
            answer = {"ready": True, "models": [], "running": [{"model": "a", "state": "ready"}]}
            self.wfile.write(json.dumps(answer if known else {"error": {"message": "no such key"}}).encode())

        def log_message(self, *_: object) -> None:
            """Nothing on the screen of the tests."""

    with http.server.HTTPServer(("127.0.0.1", 0), Guarded) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_proxy_that_wants_a_key_gets_ours_or_is_told(guarded: int, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://127.0.0.1:{guarded}"
    monkeypatch.setenv("IMAGEWORKS_KEY", "bad")
    (refused,) = proxy.check(address)
    monkeypatch.setenv("IMAGEWORKS_KEY", "good")
    (let_in,) = proxy.check(address)
    assert refused.level == "warning"
    assert "does not tell how its models are" in refused.found
    assert "export IMAGEWORKS_KEY=" in refused.todo
    assert (let_in.level, let_in.found) == ("ok", f"answers at {address}, 0 healthy models")


def test_status_says_where_a_key_is_missing(
    tmp_path: Path, guarded: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started(tmp_path, table(guarded, a={}))
    monkeypatch.delenv("IMAGEWORKS_KEY", raising=False)
    assert residency(tmp_path) == {}
    assert "export IMAGEWORKS_KEY=" in capsys.readouterr().err
    monkeypatch.setenv("IMAGEWORKS_KEY", "good")
    assert residency(tmp_path) == {"model-a": {"model": "a", "state": "ready"}}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("address", [None, "http://127.0.0.1:1"])
def test_a_proxy_that_does_not_run_is_no_fault(address: str | None) -> None:
    assert list(proxy.check(address)) == []


# GPUs


def test_a_machine_without_a_driver_is_no_fault() -> None:
    assert gpus.driver(Detection((), "no NVIDIA driver: libnvidia-ml.so.1 is not installed")).level == "ok"


def test_a_driver_without_cards_or_with_a_lost_one_is_an_error() -> None:
    assert gpus.driver(Detection((), "the NVIDIA driver is installed but not loaded")).level == "error"
    lost = gpus.driver(Detection((CARD,), "GPU 1 is left out: GPU is lost"))
    assert (lost.level, lost.found) == ("error", "NVIDIA RTX A4000 16384 MiB; GPU 1 is left out: GPU is lost")
    assert gpus.driver(Detection((CARD,))).level == "ok"


def test_a_card_that_the_plan_is_bound_to_and_that_is_gone_is_an_error(tmp_path: Path) -> None:
    locations.run_dir(tmp_path).mkdir(parents=True)
    locations.devices_file(tmp_path).write_text(json.dumps({"uuids": ["GPU-1", "GPU-2"]}))
    assert gpus.bound(tmp_path) == ("GPU-1", "GPU-2")
    (found,) = gpus.binding(Detection((CARD,)), ("GPU-1", "GPU-2"))
    assert found.found == "the plan is bound to GPU-2, which NVML does not see"
    assert list(gpus.binding(Detection((CARD,)), ("GPU-1",))) == []


# the machine


@pytest.mark.parametrize(
    ("limit", "level"), [(256, "error"), (1024, "warning"), (4096, "ok"), (resource.RLIM_INFINITY, "ok")]
)
def test_few_open_files_are_told(limit: int, level: str) -> None:
    assert machine.files(limit).level == level


@pytest.mark.parametrize(
    ("name", "free", "level"),
    [
        ("state", 64 << 20, "error"),
        ("state", 512 << 20, "warning"),
        ("state", 2 << 30, "ok"),
        ("store", 2 << 30, "warning"),
        ("store", 20 << 30, "ok"),
    ],
)
def test_a_disk_that_is_nearly_full_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, free: int, level: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: type("Usage", (), {"free": free})())
    assert machine.disk(name, tmp_path / "not" / "yet").level == level


def test_a_state_folder_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _place, _mode: False)  # root may write everywhere
    assert machine.disk("state", tmp_path).level == "error"
    assert machine.disk("models", tmp_path).level == "warning"


# versions


@pytest.mark.parametrize(
    ("name", "version", "level"),
    [
        ("aiohttp", "3.14.2", "error"),
        ("aiohttp", "3.14.3", "ok"),
        ("aiohttp", "3.15.0rc1", "ok"),
        ("vllm", "0.14.0", "error"),
        ("vllm", "0.18.2", "warning"),
        ("vllm", "0.32.1", "ok"),
        ("ollama", "0.17.0", "error"),
        ("ollama", "0.20.1", "ok"),
        ("llama.cpp", "b8145-1a2b3c", "error"),
        ("llama.cpp", "b11549-1a2b3c", "ok"),
    ],
)
def test_a_version_with_a_known_defect_is_told_with_its_source(name: str, version: str, level: str) -> None:
    (found,) = versions.judge(name, version, "installed")
    assert found.level == level
    assert ("https://" in found.todo) == (level != "ok")


@pytest.mark.parametrize("version", ["", "0.0.0", "unknown", "b0-unknown"])
def test_a_version_that_says_nothing_is_not_judged(version: str) -> None:
    assert list(versions.judge("ollama", version, "x")) == []


def test_servers_of_the_plan_are_asked_for_their_version(free_ports: Make) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"version": "0.16.0"}' if self.path == "/api/version" else b"[]"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    nobody = free_ports(1)[0]
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        plan = table(
            1,
            a={"backend": "ollama", "url": url},
            b={"backend": "ollama", "url": url},
            c={"backend": "vllm", "url": url},
            d={"backend": "vllm", "url": f"http://127.0.0.1:{nobody}"},
            e={"backend": "openai", "url": url},
        )
        found = [each for each in versions.check(plan) if "at http" in each.found]
        server.shutdown()
    assert [(each.level, each.found.partition(" (")[0]) for each in found] == [("error", "ollama 0.16.0")]
