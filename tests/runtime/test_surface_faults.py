"""Compressed bombs and names that lead to two addresses: F45 and F54 of the fault list, on both speeds."""

from __future__ import annotations

import asyncio
import gzip
import resource
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

Make = Callable[..., Any]
Play = Callable[[Coroutine[Any, Any, None]], None]
BOMB = gzip.compress(bytes(64 << 20), 9)
ASK = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "identity, gzip", "GZIP", "x-gzip", "aes128gcm"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/gpu/lease", "/v1/audio/transcriptions"])
def test_f45_a_compressed_body_is_refused_unread(world: Make, play: Play, coding: str, path: str) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            status, answer, _ = await w.post(BOMB, path=path, headers={"Content-Encoding": coding})
            assert status in (400, 415), answer
            assert "error" in answer
            assert w.engines["small"].starts == 0
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB: it was not unpacked
            status, answer, _ = await w.post(ASK, headers={"Content-Encoding": coding})
            assert (status, answer["error"]["code"]) == (415, "encoding_refused")  # whatever it would unpack to
            assert (await w.post(ASK))[0] == 200

    play(story())


def test_f45_an_engines_compressed_answer_passes_as_it_is(world: Make, play: Play) -> None:
    async def story() -> None:
        packed = gzip.compress(b'{"choices":[]}')
        server = await asyncio.start_server(_says(packed), "127.0.0.1", 0)
        async with (
            world({"small": {"url": f"http://127.0.0.1:{_port(server)}"}}) as w,
            w.http.post("/v1/chat/completions", json=ASK, auto_decompress=False) as answer,
        ):
            assert answer.headers["Content-Encoding"] == "gzip"
            assert await answer.read() == packed
        server.close()

    play(story())


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4 only", "IPv6 only"])
def test_f54_a_name_with_two_addresses_reaches_the_one_that_serves(
    world: Make, play: Play, family: socket.AddressFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    loopback, other = ("127.0.0.1", "::1") if family is socket.AF_INET else ("::1", "127.0.0.1")
    try:
        with socket.socket(family) as probe:
            probe.bind((loopback, 0))
    except OSError:
        pytest.skip(f"no {loopback} here")

    async def story() -> None:
        loop = asyncio.get_running_loop()
        asked = loop.getaddrinfo

        async def resolver(host: Any, port: Any, **options: Any) -> list[Any]:
            """The address where nobody listens comes first."""
            hosts = [other, loopback] if host == "localhost" else [host]
            return [found for each in hosts for found in await asked(each, port, **{**options, "family": 0})]

        monkeypatch.setattr(loop, "getaddrinfo", resolver)
        server = await asyncio.start_server(_says(b'{"choices":["here"]}'), loopback, 0, family=family)
        async with world({"small": {"url": f"http://localhost:{_port(server)}"}}) as w:
            await w.engines["small"].listen()
            await w.post(ASK)
            begin = time.monotonic()
            status, answer, _ = await w.post(ASK)
            assert (status, answer) == (200, {"choices": ["here"]})
            assert time.monotonic() - begin < 1.0  # 0.3 where nothing else runs
        server.close()

    play(story())


def test_f54_our_own_programs_are_asked_by_address(world: Make, play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            names: list[object] = []
            asked = asyncio.get_running_loop().getaddrinfo

            async def resolver(host: object, *more: Any, **options: Any) -> Any:
                names.append(host)
                return await asked(host, *more, **options)  # type: ignore[arg-type]

            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolver)
            assert (await w.post(ASK))[0] == 200
            assert not [name for name in names if name not in ("127.0.0.1", None)]

    play(story())


def _says(body: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
    """An engine that answers every request with this."""
    packed = b"Content-Encoding: gzip\r\n" if body[:2] == b"\x1f\x8b" else b""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n" % (packed, len(body))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(asked.partition(b"content-length:")[2].split(b"\r\n")[0] or 0))
                writer.write(head + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    return serve


def _port(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])
