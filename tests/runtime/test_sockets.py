"""Who listens on a port, against real sockets of this machine."""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.runtime import sockets

LISTEN = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); sys.stdin.read()"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_listener_is_found_with_its_process(host: str) -> None:
    with socket.create_server((host, 0)) as server:
        port = server.getsockname()[1]
        (found,) = sockets.listeners(port)
        assert found.pids == (os.getpid(),)
        assert found.inode == os.fstat(server.fileno()).st_ino
        assert sockets.who(port).startswith(f"pid {os.getpid()} (")
        assert sockets.owned(port, [os.getpid()])
    assert sockets.listeners(port) == ()
    assert sockets.who(port) == ""
    assert sockets.owned(port, [os.getpid()]) is False


def test_a_listener_of_another_process_is_not_ours() -> None:
    with subprocess.Popen([sys.executable, "-c", LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert sockets.owned(port, [os.getpid()]) is False
        assert sockets.owned(port, [os.getpid(), process.pid]) is True
        assert str(process.pid) in sockets.who(port)
        process.communicate()


def test_a_connection_is_no_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert sockets.listeners(client.getsockname()[1]) == ()


def test_without_any_process_to_ask_the_answer_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert sockets.owned(server.getsockname()[1], []) is None


@given(st.ip_addresses())
def test_an_address_is_read_as_the_kernel_writes_it(given: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    words = [given.packed[at : at + 4] for at in range(0, len(given.packed), 4)]
    text = "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
    assert sockets.address(text) == given


@pytest.mark.parametrize(
    ("bound", "host", "reached"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "127.0.0.1", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("::1", "127.0.0.1", False),
        ("192.168.1.5", "127.0.0.1", False),
        ("0.0.0.0", "::1", False),
    ],
)
def test_only_who_can_be_reached_counts(bound: str, host: str, reached: bool) -> None:  # noqa: FBT001 - a case
    assert sockets.reaches(ipaddress.ip_address(bound), host) is reached
