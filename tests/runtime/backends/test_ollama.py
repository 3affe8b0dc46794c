"""The Ollama driver against a fake of Ollama's protocol, written from its API documentation; never against Ollama itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from imageworks.runtime.backends.ollama import OllamaModel, same_tag
from imageworks.runtime.backends.protocol import DriverError

Make = Callable[..., Any]


class FakeOllama:
    """Holds what is loaded; an unload is answered before the memory is back, as the real one does."""

    def __init__(self) -> None:
        self.loaded: set[str] = set()
        self.asked: list[dict[str, Any]] = []
        self.made: list[dict[str, Any]] = []
        self.looks_until_gone = 2
        self.leaving: dict[str, int] = {}

    async def ps(self, _request: web.Request) -> web.Response:
        for tag in [tag for tag, looks in self.leaving.items() if looks == 0]:
            del self.leaving[tag]
        for tag in self.leaving:
            self.leaving[tag] -= 1
        tags = sorted(self.loaded | self.leaving.keys())
        return web.json_response({"models": [{"name": tag, "model": tag, "size_vram": 1} for tag in tags]})

    async def generate(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        self.asked.append(body)
        if body["model"] == "nobody":
            return web.json_response({"error": "model 'nobody' not found"}, status=404)
        tag = body["model"] if ":" in body["model"] else body["model"] + ":latest"
        if body["keep_alive"] == 0:
            self.loaded.discard(tag)
            self.leaving[tag] = self.looks_until_gone
        else:
            self.loaded.add(tag)
        return web.json_response({"model": tag, "done": True})

    async def show(self, request: web.Request) -> web.Response:
        here = json.loads(await request.read())["model"] != "nobody"
        return web.json_response({} if here else {"error": "model 'nobody' not found"}, status=200 if here else 404)

    async def create(self, request: web.Request) -> web.Response:
        self.made.append(json.loads(await request.read()))
        return web.json_response({"status": "success"})


@asynccontextmanager
async def served(fake: FakeOllama, port: int) -> AsyncIterator[aiohttp.ClientSession]:
    app = web.Application()
    app.router.add_get("/api/ps", fake.ps)
    app.router.add_post("/api/generate", fake.generate)
    app.router.add_post("/api/show", fake.show)
    app.router.add_post("/api/create", fake.create)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with aiohttp.ClientSession() as http:
            yield http
    finally:
        await runner.cleanup()


@pytest.fixture
def play(route: Make, free_ports: Make) -> Make:
    def run(story: Callable[[FakeOllama, OllamaModel], Coroutine[Any, Any, None]], **changes: Any) -> None:
        (port,) = free_ports(1)
        made = route("a", port, backend="ollama", program=None, **({"served_name": "qwen"} | changes))
        fake = FakeOllama()

        async def within() -> None:
            async with asyncio.timeout(20), served(fake, port) as http:
                await story(fake, OllamaModel(http, made))

        asyncio.run(within())

    return run


def test_a_model_is_loaded_to_stay_with_its_context(play: Make) -> None:
    async def story(fake: FakeOllama, driver: OllamaModel) -> None:
        assert not await driver.ready()
        await driver.start()
        assert await driver.ready()
        assert fake.asked == [{"model": "qwen", "stream": False, "keep_alive": -1, "options": {"num_ctx": 2048}}]

    play(story)


def test_a_model_of_our_own_is_made_with_the_context_before_it_is_loaded(play: Make) -> None:
    name = "imageworks/qwen:7b-2048"

    async def story(fake: FakeOllama, driver: OllamaModel) -> None:
        await driver.start()
        assert fake.made == [{"model": name, "from": "qwen:7b", "parameters": {"num_ctx": 2048}, "stream": False}]
        assert fake.asked[0]["model"] == name
        assert await driver.ready()
        await driver.stop()
        assert (fake.asked[-1]["model"], fake.asked[-1]["keep_alive"]) == (name, 0)

    play(story, served_name=name, made_from="qwen:7b")


def test_a_model_is_not_made_from_what_is_not_there(play: Make) -> None:
    async def story(fake: FakeOllama, driver: OllamaModel) -> None:
        with pytest.raises(DriverError, match="run: ollama pull nobody"):
            await driver.start()
        assert not fake.made

    play(story, served_name="imageworks/nobody:latest-2048", made_from="nobody")


def test_an_unload_is_over_only_when_the_daemon_lists_it_no_more(play: Make) -> None:
    async def story(fake: FakeOllama, driver: OllamaModel) -> None:
        await driver.start()
        await driver.stop()
        assert fake.asked[-1]["keep_alive"] == 0
        assert fake.leaving == {}
        await driver.stop()
        assert len(fake.asked) == 2

    play(story)


def test_memory_that_does_not_come_back_is_an_error(play: Make) -> None:
    async def story(fake: FakeOllama, driver: OllamaModel) -> None:
        fake.looks_until_gone = 10_000
        await driver.start()
        with pytest.raises(DriverError, match=r"ollama still holds qwen after 0\.4 s"):
            await driver.stop()

    play(story, stop_timeout_s=0.4)


def test_the_daemons_own_words_are_passed_on(play: Make) -> None:
    async def story(_fake: FakeOllama, driver: OllamaModel) -> None:
        with pytest.raises(DriverError, match="model 'nobody' not found"):
            await driver.start()

    play(story, served_name="nobody")


def test_no_daemon_is_an_error_with_its_address(route: Make, free_ports: Make) -> None:
    (port,) = free_ports(1)

    async def story() -> None:
        async with aiohttp.ClientSession() as http:
            driver = OllamaModel(http, route("a", port, backend="ollama", program=None))
            assert not await driver.ready()
            with pytest.raises(DriverError, match=f"does not answer at http://127.0.0.1:{port}"):
                await driver.status()

    asyncio.run(story())


def test_latest_is_the_tag_that_nobody_writes() -> None:
    assert same_tag("qwen", "qwen:latest")
    assert not same_tag("qwen:7b", "qwen")
