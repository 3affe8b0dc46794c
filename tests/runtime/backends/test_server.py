"""One look at a model's server, and one token of it, against real answers on a real port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from imageworks.runtime.backends import server
from imageworks.runtime.backends.server import Server

Make = Callable[..., Any]
TOKEN = '{"choices": [{"index": 0, "text": "x"}]}'
VECTOR = '{"data": [{"embedding": [0.1]}]}'


class Answers:
    """A server that answers every path as told; `asked` holds the bodies of what was asked."""

    def __init__(self, status: int = 200, text: str = "{}", *, hangs: bool = False) -> None:
        self.status, self.text, self.hangs = status, text, hangs
        self.asked: list[tuple[str, Any]] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, await request.json() if request.method == "POST" else None))
        if self.hangs:
            await asyncio.Event().wait()
        return web.Response(status=self.status, text=self.text)


@pytest.fixture
def play(route: Make, free_ports: Make) -> Make:
    def run(answers: Answers | None, ask: Callable[[Server], Any], **changes: Any) -> Any:
        (port,) = free_ports(1)

        async def story() -> Any:
            app = web.Application()
            if answers is not None:
                app.router.add_route("*", "/{path:.*}", answers.handle)
            runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
            await runner.setup()
            try:
                if answers is not None:
                    await web.TCPSite(runner, "127.0.0.1", port).start()
                async with aiohttp.ClientSession() as http:
                    return await ask(Server(http, route("a", port, **changes)))
            finally:
                await runner.cleanup()

        return asyncio.run(story())

    return run


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (Answers(200), "ok"),
        (Answers(404), "ok"),  # a server without that page
        (Answers(503), "failing"),
        (Answers(hangs=True), "silent"),
        (None, "absent"),
    ],
)
def test_a_health_endpoint_is_well_failing_silent_or_absent(
    play: Make, monkeypatch: pytest.MonkeyPatch, answers: Answers | None, said: str
) -> None:
    monkeypatch.setattr(server, "LOOK_S", 0.2)
    look = play(answers, lambda one: one.look())
    assert look.answering == said
    assert bool(look.note) == (said != "ok")


@pytest.mark.parametrize(
    ("backend", "answers", "computes"),
    [
        ("vllm", Answers(200, TOKEN), True),
        ("vllm", Answers(200, '{"choices": []}'), False),
        ("vllm", Answers(200, "no json"), False),
        ("vllm", Answers(500), False),
        ("vllm", Answers(404), None),
        ("openai", Answers(200, TOKEN), True),
        ("openai", Answers(500), None),  # what an unknown server says to an unexpected question
        ("openai", Answers(hangs=True), False),
        ("vllm", None, False),
    ],
)
def test_one_token_says_whether_the_engine_computes(
    play: Make,
    backend: str,
    answers: Answers | None,
    computes: bool | None,  # noqa: FBT001 - a case
) -> None:
    assert play(answers, lambda one: one.canary(0.3), backend=backend) is computes


def test_no_two_canaries_ask_the_same_so_that_no_cache_can_answer(play: Make) -> None:
    answers = Answers(200, TOKEN)

    async def twice(one: Server) -> None:
        await one.canary(1)
        await one.canary(1)

    play(answers, twice)
    (path, first), (_, second) = answers.asked
    assert path == "/v1/completions"
    assert first["prompt"] != second["prompt"]
    assert (first["model"], first["max_tokens"], first["temperature"]) == ("served-a", 1, 0)


def test_a_model_is_asked_only_for_what_it_can(play: Make) -> None:
    vectors = Answers(200, VECTOR)
    assert play(vectors, lambda one: one.canary(1), capabilities=("embedding",)) is True
    assert [path for path, _ in vectors.asked] == ["/v1/embeddings"]
    nothing = Answers(200, TOKEN)
    assert play(nothing, lambda one: one.canary(1), capabilities=("detection",)) is None
    assert nothing.asked == []


def test_names_are_given_only_by_a_server_that_is_well(play: Make) -> None:
    listed = '{"data": [{"id": "one"}, {"id": "two"}]}'
    assert play(Answers(200, listed), lambda one: one.names()) == ("one", "two")
    assert play(Answers(503, listed), lambda one: one.names()) is None  # llama.cpp lists its models while it loads
    assert play(Answers(200, "<html>"), lambda one: one.names()) is None
    assert play(None, lambda one: one.names()) is None
