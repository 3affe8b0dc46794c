"""Streams, clients that leave, and the end of the proxy."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from typing import Any

import openai
import pytest

from imageworks.runtime.app import drain

ASK = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}


Play = Callable[[Coroutine[Any, Any, None]], None]
Make = Callable[..., Any]


def test_a_stream_arrives_in_pieces_as_the_engine_sends_them(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            engine = w.engines["small"]
            engine.go_on.clear()
            stream = await w.client.chat.completions.create(
                model="small", messages=[{"role": "user", "content": "hi"}], stream=True
            )
            first = await anext(stream)  # the engine has not sent the second piece yet
            engine.go_on.set()
            rest = [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]
            assert [first.choices[0].delta.content, *rest] == ["Hel", "lo"]

    play(story())


def test_stream_bytes_are_the_engines_own(world: Make, play: Play) -> None:
    async def story() -> None:
        async with (
            world({"small": {}}) as w,
            w.http.post("/v1/chat/completions", json=ASK | {"stream": True}) as answer,
        ):
            assert await answer.read() == b"".join(w.engines["small"].pieces)
            assert answer.headers["x-imageworks-model"] == "small"
            assert answer.headers["Content-Type"] == "text/event-stream"

    play(story())


def test_an_engine_that_dies_mid_stream_ends_in_one_error_and_no_done(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            engine = w.engines["small"]
            engine.dies_mid_answer = True
            engine.go_on.clear()
            stream = await w.client.chat.completions.create(
                model="small", messages=[{"role": "user", "content": "hi"}], stream=True
            )
            assert (await anext(stream)).choices[0].delta.content == "Hel"
            engine.go_on.set()
            with pytest.raises(openai.APIError, match="broke off"):
                await anext(stream)
        assert [(line["outcome"], line["error"]["type"]) for line in w.lines()] == [("backend_error", "backend_error")]

    play(story())


def test_while_a_model_loads_a_stream_gets_comments_and_then_its_answer(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}, quiet_s=0.01) as w:
            engine = w.engines["small"]
            engine.loaded.clear()
            async with w.http.post("/v1/chat/completions", json=ASK | {"stream": True}) as answer:
                assert (await answer.content.readline()).startswith(b": waiting for small (starting)")
                engine.loaded.set()
                text = await answer.read()
            assert text.endswith(b"".join(engine.pieces))

    play(story())


def test_a_comment_says_which_place_a_request_has_and_when_it_may_be_served(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}, quiet_s=0.01) as w:
            engine = w.engines["small"]
            engine.loaded.clear()
            streamed = ASK | {"stream": True}
            async with w.http.post("/v1/chat/completions", json=streamed) as first:
                said = await first.content.readline()
                assert re.match(rb": waiting for small \(starting\), place 1, about \d+ s, \d+ s at most\n", said), said
                async with w.http.post("/v1/chat/completions", json=streamed) as second:
                    said = await second.content.readline()
                    assert b", place 2, about " in said, said
                    engine.loaded.set()
                    assert (await second.read()).endswith(b"".join(engine.pieces))
                await first.read()

    play(story())


def test_a_client_that_asks_for_events_gets_them_in_the_place_of_comments(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}, quiet_s=0.01) as w:
            engine = w.engines["small"]
            engine.loaded.clear()
            ask = {"json": ASK | {"stream": True}, "headers": {"X-ImageWorks-Status": "events"}}
            async with w.http.post("/v1/chat/completions", **ask) as answer:
                assert await answer.content.readline() == b"event: imageworks.status\n"
                told = json.loads((await answer.content.readline()).removeprefix(b"data: "))
                assert await answer.content.readline() == b"\n"
                assert (told.keys(), told["model"], told["state"], told["place"]) == (
                    {"model", "state", "place", "estimate_s", "left_s"}, "small", "starting", 1,
                )  # fmt: skip
                assert told["estimate_s"] >= 0
                assert 0 < told["left_s"] <= w.proxy.table.proxy.queue_wait_s
                engine.loaded.set()
                text = await answer.read()
            said = b"".join(engine.pieces)
            assert text.endswith(said)
            others = [each for each in text.removesuffix(said).split(b"\n\n") if each]
            assert all(each.startswith(b"event: imageworks.status\ndata: {") for each in others)

    play(story())


def test_a_stream_that_need_not_wait_tells_nothing_whatever_was_asked(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            for _ in range(2):
                headers = {"X-ImageWorks-Status": "events"}
                async with w.http.post("/v1/chat/completions", json=ASK | {"stream": True}, headers=headers) as answer:
                    assert await answer.read() == b"".join(w.engines["small"].pieces)

    play(story())


@pytest.mark.parametrize("said", ["", "comments", "events, events"])
def test_other_words_about_the_status_are_refused(said: str, world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            assert (await w.post(ASK))[0] == 200  # so that it is ready, and either way might be taken
            status, answer, _ = await w.post(ASK, headers={"X-ImageWorks-Status": said})
            assert (status, answer["error"]["code"], w.engines["small"].hits) == (400, "invalid_header", 1)

    play(story())


def test_a_start_that_fails_after_comments_is_an_error_event(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {"start_timeout_s": 0.3}}, quiet_s=0.01) as w:
            w.engines["small"].loaded.clear()
            with pytest.raises(openai.APIError, match="not ready after 0\\.3 s"):
                async for _ in await w.client.chat.completions.create(
                    model="small", messages=[{"role": "user", "content": "hi"}], stream=True
                ):
                    pass

    play(story())


def test_before_comments_a_failed_start_keeps_its_own_status(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            w.engines["small"].dies_at_start = "error: broken"
            status, answer, _ = await w.post(ASK | {"stream": True})
            assert (status, answer["error"]["code"]) == (503, "start_failed")

    play(story())


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_the_engines_work_and_frees_its_place(
    world: Make, play: Play, *, stream: bool
) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            engine = w.engines["small"]
            engine.go_on.clear()
            ask = asyncio.create_task(w.post(ASK | {"stream": stream}))
            await engine.hit.wait()
            ask.cancel()
            await asyncio.gather(ask, return_exceptions=True)
            await engine.client_left.wait()
            await w.until(lambda: not w.proxy.active)
            assert w.proxy.drive.state.granted == {}
        assert [line["outcome"] for line in w.lines()] == ["client_abort"]

    play(story())


def test_a_client_that_hangs_up_after_the_last_event_had_its_answer(world: Make, play: Play) -> None:
    """The official clients do so: they stop reading at [DONE], while the engine's connection is still open."""

    async def story() -> None:
        async with world({"small": {}}) as w:
            engine = w.engines["small"]
            engine.pieces = (b'data: {"choices":[{"index":0,"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',)
            engine.go_on.clear()
            async with w.http.post("/v1/chat/completions", json=ASK | {"stream": True}) as answer:
                while b"[DONE]" not in await answer.content.readline():
                    pass
                answer.close()
            await w.until(lambda: not w.proxy.active)
        assert [(line["outcome"], line["finish_reason"]) for line in w.lines()] == [("ok", "stop")]

    play(story())


def test_a_client_that_leaves_the_queue_is_forgotten(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            w.engines["small"].loaded.clear()
            ask = asyncio.create_task(w.post(ASK))
            await w.until(lambda: w.proxy.drive.state.waiting)
            ask.cancel()
            await asyncio.gather(ask, return_exceptions=True)
            await w.until(lambda: not w.proxy.drive.state.waiting)
            w.engines["small"].loaded.set()
        assert [line["outcome"] for line in w.lines()] == ["client_abort"]

    play(story())


def test_draining_lets_a_stream_finish_and_refuses_newcomers(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            engine = w.engines["small"]
            engine.go_on.clear()
            ask = asyncio.create_task(w.http.post("/v1/chat/completions", json=ASK | {"stream": True}))
            await engine.hit.wait()
            draining = asyncio.create_task(drain(w.proxy))
            await w.until(lambda: w.proxy.ending)
            status, answer, headers = await w.post(ASK)
            assert (status, answer["error"]["code"], headers["x-should-retry"]) == (503, "shutting_down", "true")
            assert (await w.get("/readyz"))[0] == 503
            engine.go_on.set()
            assert (await (await ask).read()).endswith(b"[DONE]\n\n")
            await draining
            assert engine.stops == 0

    play(story())


def test_a_stream_that_outlives_the_drain_time_ends_in_an_error_event(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}, drain_s=0.05) as w:
            w.engines["small"].go_on.clear()
            async with w.http.post("/v1/chat/completions", json=ASK | {"stream": True}) as answer:
                await answer.content.readline()
                await drain(w.proxy)
                text = await answer.read()
            assert b'"code":"shutting_down"' in text
            assert b"[DONE]" not in text

    play(story())
