"""Processes are told apart by number and start time, found wherever they fled, and ended for good; all real ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imageworks.runtime import processes
from imageworks.runtime.leases import Holder

BRANCHING = """
import os, signal, subprocess, sys, time
deaf = len(sys.argv) > 1
if deaf:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = "import signal, sys, time\\n" + ("signal.signal(signal.SIGTERM, signal.SIG_IGN)\\n" if deaf else "") + "print(1, flush=True)\\ntime.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""
Branch = Callable[..., tuple[subprocess.Popen[str], int]]


@pytest.fixture
def branch() -> Iterator[Branch]:
    """`branch("deaf", env=…)`: a process and the pid of its child, which has a session of its own."""
    started: list[subprocess.Popen[str]] = []
    children: list[int] = []

    def start(*words: str, **env: str) -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen(
            [sys.executable, "-c", BRANCHING, *words],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )
        started.append(process)
        assert process.stdout is not None
        children.append(int(process.stdout.readline()))
        return process, children[-1]

    yield start
    for process, child in zip(started, children, strict=True):
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        if processes.identity(child):
            os.kill(child, signal.SIGKILL)


def who(pid: int) -> Holder:
    found = processes.identity(pid)
    assert found is not None
    return found


def test_a_reused_number_is_somebody_else(branch: Branch) -> None:
    process, _ = branch()
    real = who(process.pid)
    stranger = replace(real, start=real.start - 1)
    assert processes.alive(real)
    assert not processes.alive(stranger)
    assert not processes.send(stranger, signal.SIGKILL)
    assert processes.alive(real)
    assert processes.end(lambda: [stranger], 0.1) == ()
    assert processes.alive(real)


def test_a_zombie_counts_as_gone(branch: Branch) -> None:
    process, _ = branch()
    holder = who(process.pid)
    process.kill()
    assert processes.wait_gone([holder], time.monotonic() + 10)
    assert not processes.alive(holder)
    assert processes.identity(process.pid) is None


def test_a_tree_reaches_over_sessions(branch: Branch) -> None:
    process, child = branch()
    assert processes.tree(process.pid) == (who(process.pid), who(child))
    assert processes.tree(child) == (who(child),)
    process.kill()
    process.wait()
    assert processes.tree(process.pid) == ()


def test_a_mark_finds_what_lost_its_parent(branch: Branch) -> None:
    process, child = branch(IMAGEWORKS_LEASE="lease-7")
    process.kill()
    process.wait()
    assert processes.marked({processes.LEASE_MARK: "lease-7"}) == (who(child),)
    assert processes.marked({processes.LEASE_MARK: "lease-77"}) == ()
    assert processes.marked({processes.LEASE_MARK: "lease-"}) == ()
    assert processes.environment(child)["IMAGEWORKS_LEASE"] == "lease-7"


def test_we_ourselves_are_never_found() -> None:
    mine = processes.environment(os.getpid())
    name = next(iter(mine))
    assert os.getpid() not in {holder.pid for holder in processes.marked({name: mine[name]})}
    assert os.getppid() in set(processes.ancestors(os.getpid()))


@pytest.mark.parametrize("words", [(), ("deaf",)])
def test_the_whole_tree_ends_also_where_it_ignores_sigterm(branch: Branch, words: tuple[str, ...]) -> None:
    process, child = branch(*words)
    holders = processes.tree(process.pid)
    assert len(holders) == 2
    assert processes.end(lambda: holders, 0.2 if words else 10) == ()
    assert process.wait(10) == (-signal.SIGKILL if words else -signal.SIGTERM)
    assert processes.identity(child) is None


def test_a_child_born_while_it_ends_is_found(branch: Branch) -> None:
    first, second = branch(), branch()
    rounds = iter([processes.tree(first[0].pid)])
    assert processes.end(lambda: next(rounds, processes.tree(second[0].pid)), 10) == ()
    assert [process.wait(10) for process, _ in (first, second)] == [-signal.SIGTERM] * 2


def test_who_cannot_be_ended_is_named(branch: Branch, monkeypatch: pytest.MonkeyPatch) -> None:
    process, _ = branch()
    holder = who(process.pid)

    def refuse(handle: int, number: int) -> None:
        raise PermissionError(handle, number)

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    monkeypatch.setattr(processes, "KILL_WAIT_S", 0.05)
    assert processes.end(lambda: [holder], 0.05) == (holder,)


def test_what_the_launcher_recorded_is_found_in_this_boot_only(branch: Branch, tmp_path: Path) -> None:
    process, child = branch()
    run = tmp_path / ".imageworks" / "run"
    run.mkdir(parents=True)
    holder = who(process.pid)
    word = {"schema": 1, "pid": holder.pid, "start": holder.start, "boot": processes.boot_id()}
    (run / "model-a.started.json").write_text(json.dumps(word))
    (run / "model-b.started.json").write_text(json.dumps(word | {"boot": "another"}))
    (run / "model-c.started.json").write_text(json.dumps(word | {"start": holder.start + 1}))
    (run / "model-d.started.json").write_text("{")
    (run / "model-e.started.json").write_text(json.dumps({"schema": 1, "pid": holder.pid}))
    assert processes.recorded(tmp_path) == {"model-a": holder}
    assert processes.left_of(tmp_path, "model-a") == (holder, who(child))
    assert processes.left_of(tmp_path, "model-b") == ()


def test_an_escaped_child_of_a_program_is_left_of_it(branch: Branch, tmp_path: Path) -> None:
    process, child = branch(IMAGEWORKS_STACK=str(tmp_path), IMAGEWORKS_PROGRAM="model-a")
    process.kill()
    process.wait()
    assert processes.left_of(tmp_path, "model-a") == (who(child),)
    assert processes.left_of(tmp_path, "model-b") == ()
    assert processes.left_of(tmp_path / "other", "model-a") == ()
