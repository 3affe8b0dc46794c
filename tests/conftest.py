"""Fixtures shared by all parts: free ports, and tools that may be missing on a developer's machine."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest


@pytest.fixture
def free_ports() -> Callable[[int], tuple[int, ...]]:
    """`free_ports(n)`: n TCP ports of the loopback interface that nobody uses right now, all different."""

    def take(count: int) -> tuple[int, ...]:
        with ExitStack() as held:
            sockets = [held.enter_context(socket.socket()) for _ in range(count)]
            for item in sockets:
                item.bind(("127.0.0.1", 0))
            return tuple(item.getsockname()[1] for item in sockets)

    return take


@pytest.fixture
def tool() -> Callable[[str], str]:
    """`tool("gcc")`: the path of a program; without it the test is skipped, or fails under IMAGEWORKS_REQUIRE=all."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            if os.environ.get("IMAGEWORKS_REQUIRE") == "all":
                pytest.fail(f"{name} is required (IMAGEWORKS_REQUIRE=all) and missing")
            pytest.skip(f"{name} is not installed")
        return path

    return find
