"""The official SDK with its own retries switched on: the engine is asked as often as the policy says, and no oftener."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import openai
import pytest

Make = Callable[..., Any]
Play = Callable[[Coroutine[Any, Any, None]], None]
ASK: dict[str, Any] = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}


def sdk(world: Any) -> openai.AsyncOpenAI:
    """As an application makes it: two retries."""
    return openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="none")


@pytest.mark.parametrize(("status", "kind"), [(500, openai.InternalServerError), (503, openai.InternalServerError)])
def test_a_failure_of_the_engine_is_asked_once_because_tokens_may_be_spent(
    world: Make, play: Play, status: int, kind: type[openai.APIStatusError]
) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w, sdk(w) as client:
            w.engines["small"].status_code = status
            with pytest.raises(kind):
                await client.chat.completions.create(**ASK)
            assert w.engines["small"].hits == 1

    play(story())


def test_a_mistake_of_the_client_is_asked_once(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w, sdk(w) as client:
            w.engines["small"].status_code = 400
            with pytest.raises(openai.BadRequestError, match="engine says no"):
                await client.chat.completions.create(**ASK)
            assert w.engines["small"].hits == 1
            with pytest.raises(openai.BadRequestError, match="CVE-2025-61620"):
                await client.chat.completions.create(**ASK, extra_body={"chat_template": "x"})
            assert w.engines["small"].hits == 1

    play(story())


def test_an_engine_that_dies_before_its_answer_is_asked_twice_and_the_client_notices_nothing(
    world: Make, play: Play
) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w, sdk(w) as client:
            await client.chat.completions.create(**ASK)
            w.engines["small"].dies_before_answer = True
            answer = await client.chat.completions.create(**ASK)
            assert answer.choices[0].message.content == "I am small"
            assert w.engines["small"].hits == 3

    play(story())


def test_an_engine_that_dies_in_its_answer_is_asked_once_and_the_stream_ends_with_an_error(
    world: Make, play: Play
) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w, sdk(w) as client:
            w.engines["small"].dies_mid_answer = True
            w.engines["small"].go_on.clear()
            stream = await client.chat.completions.create(**ASK, stream=True)
            first = await anext(stream)
            assert first.choices[0].delta.content == "Hel"
            w.engines["small"].go_on.set()
            with pytest.raises(openai.APIError, match="broke off"):
                async for _ in stream:
                    pass
            assert w.engines["small"].hits == 1

    play(story())


def test_a_full_queue_costs_the_engine_nothing_and_is_worth_another_try(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {"concurrency": 1}}, queue=1) as w, sdk(w) as client:
            engine = w.engines["small"]
            await client.chat.completions.create(**ASK)
            engine.go_on.clear()
            engine.hit.clear()
            first = asyncio.create_task(client.chat.completions.create(**ASK))
            await engine.hit.wait()
            second = asyncio.create_task(client.chat.completions.create(**ASK))
            await w.until(lambda: w.proxy.drive.state.waiting)
            with pytest.raises(openai.RateLimitError) as refused:
                await client.with_options(max_retries=0).chat.completions.create(**ASK)
            assert refused.value.response.headers["x-should-retry"] == "true"
            assert int(refused.value.response.headers["Retry-After"]) >= 1
            assert engine.hits == 2
            engine.go_on.set()
            assert (await first).choices
            assert (await second).choices
            assert engine.hits == 3

    play(story())


def test_a_stream_that_the_client_leaves_is_left_by_the_engine_too(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w, sdk(w) as client:
            engine = w.engines["small"]
            engine.go_on.clear()
            stream = await client.chat.completions.create(**ASK, stream=True)
            await anext(stream)
            await stream.close()
            await engine.client_left.wait()
            assert engine.hits == 1

    play(story())
