"""How a request finds its model and gets its answer, over real sockets and engines that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from imageworks.contract import Policy

ASK = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
ONE_AT_A_TIME = Policy("load_unload", 1, 4096, ())


Play = Callable[[Coroutine[Any, Any, None]], None]
Make = Callable[..., Any]


def test_the_first_request_starts_the_model_and_gets_its_answer(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            answer = await w.client.chat.completions.create(model="small", messages=[{"role": "user", "content": "hi"}])
            assert answer.choices[0].message.content == "I am small"
            assert w.engines["small"].starts == 1

    play(story())


def test_twenty_first_requests_start_one_process(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {"concurrency": 32}}, queue=32) as w:
            w.engines["small"].loaded.clear()
            asks = [asyncio.create_task(w.post(ASK)) for _ in range(20)]
            await w.until(lambda: len(w.proxy.drive.state.waiting) >= 20)
            w.engines["small"].loaded.set()
            assert {status for status, _, _ in await asyncio.gather(*asks)} == {200}
            assert w.engines["small"].starts == 1

    play(story())


def test_the_engine_gets_its_own_name_and_every_other_byte_of_the_client(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {"sampling": {"temperature": 0.25, "top_k": 40}}}, parameters=("big",)) as w:
            odd = '[{"role":"user",  "content":"\\u00e9\\ud83d\\ude00 1.50"}]'
            body = f'{{"model":"small","messages":{odd},"top_k":7,"big":123456789012345678901234567890}}'.encode()
            assert (await w.post(body))[0] == 200
            sent = w.engines["small"].bodies[0]
            assert odd.encode() in sent
            assert b"123456789012345678901234567890" in sent
            seen = w.engines["small"].seen[0]
            assert (seen["model"], seen["temperature"], seen["top_k"]) == ("served-small", 0.25, 7)

    play(story())


@pytest.mark.parametrize(
    ("name", "model"), [("small", "small"), ("tiny", "small"), ("role:chat", "big"), ("role:chat@development", "big")]
)
def test_ids_aliases_and_roles_find_their_model(world: Make, role: Make, play: Play, name: str, model: str) -> None:
    async def story() -> None:
        async with world({"small": {"aliases": ("tiny",)}, "big": {}}, roles={"chat": role("big", "small")}) as w:
            status, answer, headers = await w.post(ASK | {"model": name})
            assert (status, answer["choices"][0]["message"]["content"]) == (200, f"I am {model}")
            assert headers["x-imageworks-model"] == model

    play(story())


def test_a_body_of_megabytes_arrives_whole(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}, body_limit_bytes=8 << 20) as w:
            text = "0123456789abcdef" * (3 << 16)
            assert (await w.post({"model": "small", "messages": [{"role": "user", "content": text}]}))[0] == 200
            assert w.engines["small"].seen[0]["messages"][0]["content"] == text

    play(story())


def test_a_second_model_takes_the_place_of_the_first(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}, "big": {}}, policy=ONE_AT_A_TIME) as w:
            assert (await w.post(ASK))[0] == 200
            assert (await w.post(ASK | {"model": "big"}))[0] == 200
            assert (w.engines["small"].stops, w.engines["big"].starts) == (1, 1)
            _, running = await w.get("/running")
            assert [row["model"] for row in running["running"]] == ["big"]

    play(story())


def test_a_role_falls_to_its_next_model_when_the_first_cannot_start(world: Make, role: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"big": {}, "small": {}}, roles={"chat": role("big", "small")}) as w:
            w.engines["big"].dies_at_start = "error: out of memory"
            status, _, headers = await w.post(ASK | {"model": "role:chat"})
            assert (status, headers["x-imageworks-model"]) == (200, "small")

    play(story())


def test_a_killed_model_is_started_again_for_the_request_that_finds_it_dead(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            await w.post(ASK)
            await w.engines["small"].kill()
            assert (await w.post(ASK))[0] == 200
            assert w.engines["small"].starts == 2

    play(story())


def test_a_model_that_dies_before_its_answer_is_asked_again_once(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            w.engines["small"].dies_before_answer = True
            assert (await w.post(ASK))[0] == 200
            assert (w.engines["small"].starts, w.engines["small"].hits) == (2, 2)

    play(story())


def test_a_role_bounds_the_answer_and_says_so(world: Make, role: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}, roles={"chat": role("small", max_tokens=100)}) as w:
            ask = ASK | {"model": "role:chat"}
            _, _, headers = await w.post(ask | {"max_tokens": 5000})
            assert headers["x-imageworks-clamped"] == "max_tokens=100"
            _, _, headers = await w.post(ask | {"max_completion_tokens": 50})
            assert "x-imageworks-clamped" not in headers
            await w.post(ask)
            seen = w.engines["small"].seen
            assert [(body.get("max_tokens"), body.get("max_completion_tokens")) for body in seen] == [
                (100, None),
                (None, 50),
                (100, None),
            ]

    play(story())


def test_an_engines_own_error_passes_unchanged_and_is_not_retried(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            w.engines["small"].status_code = 500
            status, answer, headers = await w.post(ASK)
            assert (status, answer, headers["x-should-retry"]) == (
                500,
                {"error": {"message": "engine says no"}},
                "false",
            )
        assert [(line["outcome"], line["success"]) for line in w.lines()] == [("backend_error", False)]

    play(story())
