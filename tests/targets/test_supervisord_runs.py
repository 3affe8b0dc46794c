"""The emitted file under the real supervisord, worked by the real supervisorctl as people do."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from imageworks import locations
from imageworks.output.state import prepare_state
from imageworks.plan.ir import Flag, Launch, Plan
from imageworks.targets import execspec, supervisord

pytestmark = pytest.mark.e2e
DEADLINE_S = 20.0


def python(code: str) -> tuple[Flag, ...]:
    return (Flag("", "{python}", "", path=True), Flag("", "-c", ""), Flag("", code, ""))


def launched(launch: Launch, code: str) -> Launch:
    return dataclasses.replace(launch, flags=python(code), needs=())


@pytest.fixture
def stack(make_plan: Callable[..., Plan], stack_folder: Path) -> Path:
    """A stack whose proxy waits for ever with a child of its own, and whose model dies at once."""
    plan = make_plan()
    waits = launched(plan.proxy.launch, "import subprocess, sys; subprocess.run(['sleep', '600'])")
    model = plan.models[-1]
    assert model.launch is not None
    dies = dataclasses.replace(model, launch=launched(model.launch, "raise SystemExit('no {stack} weights')"))
    plan = make_plan(proxy=dataclasses.replace(plan.proxy, launch=waits), models=(dies,))
    folder = stack_folder / "my stack"
    folder.mkdir()
    assert prepare_state(folder, sys.executable) == ()
    for artifact in (*supervisord.emit(plan, (plan,)), *execspec.emit(plan, (plan,))):
        path = folder / "generated/small" / artifact.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(artifact.text, "utf-8")
    return folder


@pytest.fixture
def daemon(stack: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Supervisord in the foreground on the generated file, answering."""
    conf = stack / "generated/small/supervisord.conf"
    command = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(conf)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + DEADLINE_S
            while not locations.control_socket(stack).exists():
                assert process.poll() is None, "supervisord refused the file"
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield process
        finally:
            process.terminate()
            process.wait(DEADLINE_S)


def ctl(stack: Path, *words: str) -> str:
    """`supervisorctl` from the stack's folder, without -c."""
    command = [sys.executable, "-m", "supervisor.supervisorctl", *words]
    return subprocess.run(command, cwd=stack, capture_output=True, text=True, check=False, timeout=DEADLINE_S).stdout


def group_members(leader: int) -> list[str]:
    """Processes of the group, without those that only wait to be reaped."""
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it may end while we look
            stats.append(path.read_text())
    fields = [stat.rpartition(")")[2].split() for stat in stats]
    return [stat for stat, _, group, *_ in fields if int(group) == leader and stat != "Z"]


@pytest.mark.usefixtures("daemon")
def test_people_start_and_stop_programs_as_they_are_used_to(stack: Path) -> None:
    assert [line.split()[1] for line in ctl(stack, "status").splitlines()] == ["STOPPED", "STOPPED"]
    assert ctl(stack, "start", "imageworks-proxy") == "imageworks-proxy: started\n"
    pid = int(ctl(stack, "pid", "imageworks-proxy"))
    assert group_members(pid)
    assert ctl(stack, "stop", "imageworks-proxy") == "imageworks-proxy: stopped\n"
    assert group_members(pid) == []


@pytest.mark.usefixtures("daemon")
def test_a_model_that_dies_is_left_dead_with_its_reason_in_the_log(stack: Path) -> None:
    ctl(stack, "start", "model-smollm2-135m")
    deadline = time.monotonic() + DEADLINE_S
    while (state := ctl(stack, "status", "model-smollm2-135m").split()[1]) in {"STARTING", "RUNNING", "BACKOFF"}:
        assert time.monotonic() < deadline
    # FATAL within startsecs, EXITED where starting a Python takes longer than that
    assert state in {"FATAL", "EXITED"}
    assert locations.program_log(stack, "model-smollm2-135m").read_text() == "no {stack} weights\n"


def test_the_end_of_the_daemon_is_the_end_of_its_programs(stack: Path, daemon: subprocess.Popen[bytes]) -> None:
    ctl(stack, "start", "imageworks-proxy")
    pid = int(ctl(stack, "pid", "imageworks-proxy"))
    assert ctl(stack, "shutdown") == "Shut down\n"
    assert daemon.wait(DEADLINE_S) == 0
    assert group_members(pid) == []
    assert not locations.control_socket(stack).exists()
