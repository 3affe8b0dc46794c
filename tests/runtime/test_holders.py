"""Whoever holds a lease is watched, and everything it started is found when the lease is taken back. Real processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from imageworks.runtime import processes
from imageworks.runtime.holders import Holders
from imageworks.runtime.leases import Holder, Lease, LeaseAsk

Play = Callable[[Coroutine[Any, Any, None]], None]
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True, stdout=-3)
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def parent() -> Iterator[Callable[..., tuple[subprocess.Popen[str], int]]]:
    """A process and its child, which has a session of its own; both gone in the end."""
    started: list[subprocess.Popen[str]] = []
    children: list[Holder | None] = []

    def start(**env: str) -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen(
            [sys.executable, "-c", PARENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )
        started.append(process)
        assert process.stdout is not None
        child = int(process.stdout.readline())
        children.append(processes.identity(child))
        return process, child

    yield start
    for process in started:
        process.kill()
        process.communicate()
    processes.end(lambda: [child for child in children if child is not None], 0)


def lease(name: str, pid: int | None) -> Lease:
    ask = LeaseAsk(name, "me", 100, holder=None if pid is None else processes.identity(pid) or Holder(pid, 0))
    return Lease(name, ask, "active", {0: 1}, {0: "GPU-a"}, 60.0)


def test_the_end_of_a_holder_is_noticed_at_once(parent: Callable[..., Any], play: Play) -> None:
    async def story() -> None:
        gone: asyncio.Queue[str] = asyncio.Queue()
        holders = Holders(gone.put_nowait)
        process, _ = parent()
        holders.watch(lease("l1", process.pid))
        assert gone.empty()
        process.kill()
        assert await gone.get() == "l1"
        holders.remember(processes.everything())
        assert gone.empty()  # told once
        holders.close()

    play(story())


def test_a_holder_that_was_gone_before_is_told_as_well(play: Play) -> None:
    async def story() -> None:
        gone: asyncio.Queue[str] = asyncio.Queue()
        holders = Holders(gone.put_nowait)
        holders.watch(lease("l1", 999_999_999))
        assert await gone.get() == "l1"
        holders.close()

    play(story())


def test_the_children_of_a_dead_holder_are_found_and_ended(parent: Callable[..., Any], play: Play) -> None:
    async def story() -> None:
        gone: asyncio.Queue[str] = asyncio.Queue()
        holders = Holders(gone.put_nowait)
        process, child = parent()
        holders.watch(lease("l1", process.pid))
        holders.remember(processes.everything())
        assert holders.ours(child)
        process.kill()
        await gone.get()
        process.wait()
        assert [each.pid for each in holders.left_of("l1")] == [child]
        assert await holders.end("l1") == ()
        assert processes.identity(child) is None
        holders.close()

    play(story())


def test_a_child_that_nobody_saw_is_found_by_its_mark(parent: Callable[..., Any], play: Play) -> None:
    async def story() -> None:
        holders = Holders(lambda _lease: None)
        process, child = parent(IMAGEWORKS_LEASE="l1")
        holders.watch(lease("l1", None))
        assert holders.ours(child)
        assert {each.pid for each in holders.left_of("l1")} == {process.pid, child}
        holders.forget("l1")
        assert not holders.ours(child)
        holders.close()

    play(story())


def test_processes_of_the_stack_are_ours_and_others_are_not(
    parent: Callable[..., Any], play: Play, tmp_path: Path
) -> None:
    async def story() -> None:
        holders = Holders(lambda _lease: None, tmp_path)
        _, ours = parent(IMAGEWORKS_STACK=str(tmp_path))
        _, theirs = parent(IMAGEWORKS_STACK=str(tmp_path / "other"))
        assert (holders.ours(ours), holders.ours(theirs), holders.ours(1)) == (True, False, False)
        holders.close()

    play(story())


def test_only_a_lease_without_a_pid_leaves_processes_unknown(parent: Callable[..., Any], play: Play) -> None:
    async def story() -> None:
        gone: asyncio.Queue[str] = asyncio.Queue()
        holders = Holders(gone.put_nowait)
        process, _ = parent()
        holders.watch(lease("l1", process.pid))
        process.kill()
        await gone.get()
        assert not holders.unknown()
        holders.watch(lease("l2", None))
        assert holders.unknown()
        holders.forget("l2")
        assert not holders.unknown()
        holders.close()

    play(story())


def test_a_lease_that_changed_hands_is_watched_at_its_new_holder(parent: Callable[..., Any], play: Play) -> None:
    async def story() -> None:
        gone: asyncio.Queue[str] = asyncio.Queue()
        holders = Holders(gone.put_nowait)
        (first, _), (second, _) = parent(), parent()
        holders.watch(lease("l1", first.pid))
        holders.watch(lease("l1", second.pid))
        first.kill()
        first.wait()
        holders.remember(processes.everything())
        assert gone.empty()
        second.kill()
        assert await gone.get() == "l1"
        holders.close()

    play(story())
