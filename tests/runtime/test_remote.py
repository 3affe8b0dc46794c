"""Images by address: what is fetched, from where, and what never is."""

from __future__ import annotations

import asyncio
import base64
import io
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from PIL import Image

from imageworks.contract import ImageRule
from imageworks.runtime.errors import ApiError
from imageworks.runtime.pictures import Picture, sniff
from imageworks.runtime.remote import Fetcher, check, is_public

Make = Callable[..., Any]
Play = Callable[..., None]
Case = tuple[tuple[str, ...], list[str], str]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HOST = "images.example.org"
EYE = {"capabilities": ("chat", "vision"), "images_max": 2, "image_tokens": 1000, "context": 4096}


def png(edge: int) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((edge, edge // 2), 90).save(out, "PNG")
    return out.getvalue()


SMALL = png(20)


class Names(AbstractResolver):
    """Answers each question with the next of `answers`, all at the port of the test's server."""

    def __init__(self, port: int, *answers: tuple[str, ...]) -> None:
        self.port, self.answers, self.asked = port, list(answers or [("127.0.0.1",)]), 0

    async def resolve(
        self,
        host: str,
        port: int = 0,  # noqa: ARG002 - the resolver's signature
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - the resolver's signature
    ) -> list[ResolveResult]:
        self.asked += 1
        found = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        return [
            {"hostname": host, "host": each, "port": self.port, "family": socket.AF_INET, "proto": 0, "flags": 0}
            for each in found
        ]

    async def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Path:
    folder = tmp_path_factory.mktemp("certificate")
    words = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={HOST}")
    more = ("-addext", f"subjectAltName=DNS:{HOST}", "-keyout", "pem", "-out", "crt")
    subprocess.run([tool("openssl"), *words, *more], cwd=folder, check=True, capture_output=True)
    (folder / "pem").write_bytes((folder / "pem").read_bytes() + (folder / "crt").read_bytes())
    return folder / "pem"


def trust(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


def gives(data: bytes, kind: str = "image/png", **more: Any) -> Handler:
    async def handle(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=data, content_type=kind, **more)

    return handle


@asynccontextmanager
async def server(certificate: Path, handle: Handler) -> AsyncIterator[int]:
    """A picture server on the loopback; its port."""
    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port: int = runner.addresses[0][1]
        yield port
    finally:
        await runner.cleanup()


def fetcher(certificate: Path, names: Names, timeout_s: float = 10.0) -> Fetcher:
    """One for which 127.0.0.1 is public."""
    return Fetcher(lambda: names, lambda each: each == "127.0.0.1", trust(certificate), timeout_s)


async def refused(fetching: Fetcher, address: str = f"https://{HOST}/a", most: int = 1 << 20) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await fetching.fetch(address, [HOST], most)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "240.0.0.1", "255.255.255.255", "192.0.2.1", "::", "::1", "::7f00:1", "fe80::1", "fe80::1%eth0", "fc00::1",
        "ff02::1", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "2002:7f00:1::", "2002:808:808::1", "64:ff9b::808:808",
        "64:ff9b:1::1", "2001::1", "2001:db8::1",
    ],
)  # fmt: skip
def test_no_address_of_this_machine_or_its_network_is_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "", "x", "http://images.example.org/a", "ftp://images.example.org/a", "file:///etc/passwd", "//images.example.org/a",
        "https://images.example.org:8443/a", "https://images.example.org:22/", "https://me@images.example.org/a",
        "https://me:word@images.example.org/a", "https://:word@images.example.org/a", "https://127.0.0.1/a",
        "https://[::1]/a", "https://2130706433/a", "https://0x7f000001/a", "https://127.1/a", "https://0177.0.0.1/a",
        "https://127.0.0.0x1/a", "https://localhost/a", "https://1 2/a", "https:///a", "https://[::1", "https://a:99999999/",
        "https://other.example.org/a", "https://images.example.org./a", "https://images.example.org.evil.org/a",
        "https://images.example.org\\@evil.org/", "https://evil.org#@images.example.org/",
    ],
)  # fmt: skip
def test_nothing_but_https_to_a_listed_name_is_asked(address: str) -> None:
    with pytest.raises(ApiError) as caught:
        check(address, [HOST])
    assert (caught.value.status, caught.value.code, bool(caught.value.hint)) == (400, "remote_media_refused", True)


def test_any_name_is_asked_where_all_are_allowed_but_no_number() -> None:
    assert check("https://Other.example.org/a?b=c", None).host == "other.example.org"
    for address in ("https://8.8.8.8/a", "https://134744072/a"):
        with pytest.raises(ApiError):
            check(address, None)


def test_the_connection_goes_to_the_address_that_was_judged(play: Play, certificate: Path) -> None:
    """A name that leads elsewhere the second time (DNS rebinding) is asked once only."""

    async def story() -> None:
        async with server(certificate, gives(SMALL)) as port:
            names = Names(port, ("127.0.0.1",), ("127.0.0.2",))
            assert await fetcher(certificate, names).fetch(f"https://{HOST}/a", [HOST], 1 << 20) == SMALL
            assert names.asked == 1
            assert (await refused(fetcher(certificate, names))).code == "remote_media_refused"

    play(story())


@pytest.mark.parametrize("answer", [("127.0.0.2",), ("127.0.0.1", "127.0.0.2"), ("::1", "127.0.0.1"), ()])
def test_one_address_that_is_not_public_is_one_too_many(play: Play, certificate: Path, answer: tuple[str, ...]) -> None:
    async def story() -> None:
        async with server(certificate, gives(SMALL)) as port:
            assert (await refused(fetcher(certificate, Names(port, answer)))).code == "remote_media_refused"

    play(story())


def test_the_loopback_is_not_public_for_the_fetcher_that_serves(play: Play, certificate: Path) -> None:
    async def story() -> None:
        async with server(certificate, gives(SMALL)) as port:
            error = await refused(Fetcher(lambda: Names(port), trust=trust(certificate)))
            assert (error.status, error.code) == (400, "remote_media_refused")

    play(story())


@pytest.mark.parametrize(
    ("handle", "status", "code"),
    [
        (gives(b"", status=404), 400, "remote_image_failed"),
        (gives(SMALL, "text/html"), 400, "remote_image_failed"),
        (gives(b"<svg/>", "image/svg+xml"), 400, "remote_image_failed"),
        (gives(SMALL + bytes(1 << 20)), 413, "image_too_large"),
    ],
)
def test_what_is_no_image_of_the_right_size_is_refused_with_a_way_out(
    play: Play, certificate: Path, handle: Handler, status: int, code: str
) -> None:
    async def story() -> None:
        async with server(certificate, handle) as port:
            error = await refused(fetcher(certificate, Names(port)))
            assert (error.status, error.code, error.retry) == (status, code, False)

    play(story())


def test_a_redirect_is_not_followed_not_even_to_an_image_of_the_same_server(play: Play, certificate: Path) -> None:
    async def story() -> None:
        asked: list[str] = []

        async def handle(request: web.Request) -> web.StreamResponse:
            asked.append(request.path)
            if request.path == "/a":
                raise web.HTTPFound(f"https://{HOST}/b")
            return web.Response(body=SMALL, content_type="image/png")

        async with server(certificate, handle) as port:
            error = await refused(fetcher(certificate, Names(port)))
            assert (error.code, "redirects are not followed" in error.message) == ("remote_image_failed", True)
            assert asked == ["/a"]

    play(story())


def test_a_server_that_does_not_end_is_left(play: Play, certificate: Path) -> None:
    async def story() -> None:
        left = asyncio.Event()

        async def handle(request: web.Request) -> web.StreamResponse:
            answer = web.StreamResponse(headers={"Content-Type": "image/png"})
            await answer.prepare(request)
            try:
                while True:
                    await answer.write(b"x")
                    await asyncio.sleep(0.01)
            except (ConnectionError, asyncio.CancelledError):
                left.set()
                raise

        async with server(certificate, handle) as port:
            error = await refused(fetcher(certificate, Names(port), timeout_s=0.2))
            assert (error.code, "within 0.2 s" in error.message) == ("remote_image_failed", True)
            await asyncio.wait_for(left.wait(), 5)

    play(story())


def test_a_server_with_a_strangers_certificate_is_not_believed(play: Play, certificate: Path) -> None:
    async def story() -> None:
        async with server(certificate, gives(SMALL)) as port:
            error = await refused(Fetcher(lambda: Names(port), lambda each: each == "127.0.0.1"))
            assert error.code == "remote_image_failed"

    play(story())


def ask(*urls: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url, "detail": "low"}} for url in urls]
    return {"model": "eye", "messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, *parts]}]}


INLINE = "data:image/png;base64," + base64.b64encode(SMALL).decode()


def test_an_engine_gets_the_bytes_of_an_image_given_by_address(world: Make, play: Play, certificate: Path) -> None:
    async def story() -> None:
        async with (
            server(certificate, gives(SMALL)) as port,
            world({"eye": EYE}, remote_images=(HOST,)) as w,
        ):
            w.proxy.fetcher = fetcher(certificate, Names(port))
            status, _, headers = await w.post(ask(f"https://{HOST}/a", INLINE))
            assert (status, headers["x-imageworks-images"]) == (200, "fetched=1")
            found = [part["image_url"] for part in w.engines["eye"].seen[-1]["messages"][0]["content"][1:]]
            assert found == [{"url": INLINE, "detail": "low"}] * 2

    play(story())


def test_a_fetched_image_is_made_smaller_like_any_other_unless_the_app_does_that_itself(
    world: Make, play: Play, certificate: Path
) -> None:
    async def story() -> None:
        rule = ImageRule(max_edge_px=64)
        async with (
            server(certificate, gives(png(400))) as port,
            world({"eye": EYE}, remote_images=None, images=rule) as w,
        ):
            w.proxy.fetcher = fetcher(certificate, Names(port))
            for more, told, edge in (({}, "fetched=1, shrunk=1", 64), ({"images": "off"}, "fetched=1", 400)):
                extra = {"x-imageworks-policies": f"images={more['images']}"} if more else {}
                status, _, headers = await w.post(ask(f"https://{HOST}/a"), headers=extra)
                assert (status, headers["x-imageworks-images"]) == (200, told)
                url = w.engines["eye"].seen[-1]["messages"][0]["content"][1]["image_url"]["url"]
                picture = sniff(base64.b64decode(url.partition(",")[2]))
                assert isinstance(picture, Picture)
                assert picture.edge == edge

    play(story())


@pytest.mark.parametrize(
    "case",
    [
        ((), [f"https://{HOST}/a"], "remote_media_refused"),
        (("other.example.org",), [f"https://{HOST}/a"], "remote_media_refused"),
        ((HOST,), [""], "remote_media_refused"),
        ((HOST,), ["http://127.0.0.1/a"], "remote_media_refused"),
        ((HOST,), [f"https://{HOST}/a"] * 3, "too_many_images"),
        ((HOST,), [f"https://{HOST}/a", "data:image/png;base64,bm9uZQ=="], "invalid_image"),
    ],
)
def test_what_is_refused_never_reaches_an_engine(world: Make, play: Play, certificate: Path, case: Case) -> None:
    async def story() -> None:
        hosts, urls, code = case
        async with server(certificate, gives(SMALL)) as port, world({"eye": EYE}, remote_images=hosts) as w:
            names = Names(port)
            w.proxy.fetcher = fetcher(certificate, names)
            status, answer, _ = await w.post(ask(*urls))
            assert (status, answer["error"]["code"]) == (400, code)
            assert not w.engines["eye"].seen
            assert names.asked == (code == "invalid_image")

    play(story())


def test_an_image_that_history_leaves_out_is_not_fetched(world: Make, play: Play, certificate: Path) -> None:
    async def story() -> None:
        async with server(certificate, gives(SMALL)) as port, world({"eye": EYE}, remote_images=(HOST,)) as w:
            names = Names(port)
            w.proxy.fetcher = fetcher(certificate, names)
            old, new = ask(f"https://{HOST}/old"), ask(INLINE)
            turns = [*old["messages"], {"role": "assistant", "content": "a cat"}, *new["messages"]]
            status, _, headers = await w.post({"model": "eye", "messages": turns})
            assert (status, headers.get("x-imageworks-images"), names.asked) == (200, None, 0)

    play(story())


def test_videos_sounds_and_images_without_an_address_are_never_fetched(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"eye": EYE}, remote_images=None) as w:
            there: dict[str, Any] = {"url": f"https://{HOST}/a"}
            for name, link in (("video_url", there), ("audio_url", there), ("image_url", {})):
                part = {"type": name, name: link}
                body = {"model": "eye", "messages": [{"role": "user", "content": [part]}]}
                status, answer, _ = await w.post(body)
                assert (status, answer["error"]["code"]) == (400, "remote_media_refused")
            assert not w.engines["eye"].seen

    play(story())
