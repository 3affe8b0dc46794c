"""The fast path can be switched off, and is missed by nobody."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from imageworks.runtime.app import FAST_PATH, listening
from imageworks.runtime.start import listen


def hot(bed: Any) -> bool:
    """Would another proxy like this one have a fast path now?"""

    async def look() -> bool:
        with listen("127.0.0.1", 0) as sock:
            async with listening(bed.proxy, sock) as edge:
                return edge.hot is not None

    return bool(bed.call(look))


def test_it_is_on_unless_it_is_switched_off(beds: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert hot(beds[0])
    monkeypatch.setenv(FAST_PATH, "off")
    assert not hot(beds[0])


def test_without_its_parser_aiohttp_serves_everything_and_the_log_says_so(
    beds: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [name for name in sys.modules if name.startswith(("imageworks.runtime.wire.hot", "httptools", "imageworks.runtime.wire.up", "imageworks.runtime.wire.exch"))]:  # fmt: skip
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "httptools", None)
    assert not hot(beds[0])
    assert "no fast path" in caplog.text


def test_the_port_listens_before_aiohttp_is_loaded() -> None:
    program = (
        "import sys; from imageworks.runtime.start import listen; listen('127.0.0.1', 0); "
        "sys.exit('aiohttp' in sys.modules or 'asyncio' not in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]"])
def test_every_way_to_write_a_loopback_address_can_be_listened_on(host: str) -> None:
    try:
        sock = listen(host, 0)
    except OSError as error:
        pytest.skip(f"this machine has no {host}: {error}")
    with sock, socket.create_connection(sock.getsockname()[:2], 5) as client:
        assert client.getpeername()[1] == sock.getsockname()[1]


def test_a_port_that_is_taken_is_an_error(free_ports: Callable[[int], tuple[int, ...]]) -> None:
    (port,) = free_ports(1)
    with listen("127.0.0.1", port), pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", port)


def test_a_stop_ends_idle_connections_at_once(beds: tuple[Any, Any]) -> None:
    async def serve_and_end() -> bytes:
        with listen("127.0.0.1", 0) as sock:
            async with listening(beds[0].proxy, sock) as edge:
                reader, writer = await asyncio.open_connection(*sock.getsockname())
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
                edge.end()
                rest = await asyncio.wait_for(reader.read(), 5)
                writer.close()
                return rest

    assert beds[0].call(serve_and_end) == b""
