"""Endpoints that only look, and the records of requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from imageworks.contract import Need

ASK = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}


Play = Callable[[Coroutine[Any, Any, None]], None]
Make = Callable[..., Any]


def test_nothing_is_served_before_it_is_known_what_runs(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}, opened=False) as w:
            assert (await w.get("/readyz"))[1]["reason"] == "looking at what runs already"
            await w.engines["small"].listen()
            ask = asyncio.create_task(w.post(ASK))
            await w.until(lambda: w.proxy.drive.state.waiting)
            await w.proxy.drive.open()
            assert (await ask)[0] == 200
            assert w.engines["small"].starts == 0
            assert (await w.get("/readyz"))[0] == 200

    play(story())


def test_a_record_says_what_is_known_and_null_for_the_rest(world: Make, role: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {"sampling": {"temperature": 0.5}}}, roles={"chat": role("small")}) as w:
            await w.post(ASK | {"model": "role:chat", "max_tokens": 9}, headers={"x-request-id": "mine-1"})
            async with w.http.post("/v1/chat/completions", json=ASK | {"stream": True}) as answer:
                await answer.read()
            await w.post(ASK | {"model": "nobody"})
        short, stream, unknown = w.lines()
        assert (short["record_id"], short["role"], short["model"], short["backend"]) == (
            "mine-1",
            "chat",
            "small",
            "llamacpp",
        )
        assert (short["stack_hash"], short["bundle_hash"], short["profile"]) == ("p" * 64, "b" * 64, "development")
        assert short["tokens"] == {"in": 5, "cached": 4, "out": 3, "reasoning": None, "source": "usage"}
        assert (short["params"]["max_tokens"], short["params"]["temperature"], short["params"]["seed"]) == (
            9,
            0.5,
            None,
        )
        assert (short["finish_reason"], short["outcome"], short["success"], short["warm"]) == (
            "length",
            "truncated",
            True,
            False,
        )
        assert 0 < short["t"]["queue_ms"] <= short["t"]["ttft_proxy_ms"] <= short["t"]["total_ms"]
        assert (stream["tokens"]["in"], stream["tokens"]["out"], stream["finish_reason"], stream["warm"]) == (
            7,
            2,
            "stop",
            True,
        )
        assert stream["out_tok_per_s"] > 0
        assert (unknown["outcome"], unknown["model"], unknown["tokens"]["in"]) == ("invalid", None, None)
        assert unknown["error"] == {"type": "model_not_found", "status": 404}

    play(story())


def test_the_lists_of_models_and_profile_are_readable_by_clients(world: Make, role: Make, play: Play) -> None:
    async def story() -> None:
        async with world(
            {"small": {}, "big": {"needs": (Need("{models}/none", "get it"),)}}, roles={"chat": role("small")}
        ) as w:
            listed = [model.id async for model in w.client.models.list()]
            assert listed == ["small", "big", "role:chat"]
            assert (await w.client.models.retrieve("small")).id == "small"
            assert (await w.client.models.retrieve("role:chat")).owned_by == "role"
            _, unknown = await w.get("/v1/models/smal")
            assert "did you mean `small`" in unknown["error"]["hint"]
            _, models = await w.get("/v1/models")
            assert [row.get("weights") for row in models["data"]] == ["here", "get it", None]
            assert (await w.get("/v1/config/profile"))[1]["profile"] == "development"

    play(story())


def test_select_by_role_over_http(world: Make, role: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}, "big": {}}, roles={"chat": role("big", "small")}) as w:
            status, chosen = await w.get("/v1/models/select_by_role?role=chat&top_n=1")
            assert (status, chosen["model"], chosen["priority"], chosen["vram_estimate_mb"]) == (200, "big", 90, 300)
            assert len(chosen["models"]) == 1
            path = "/v1/models/select_by_role?role=chat&exclude_models=big,x&exclude_models=y"
            assert (await w.get(path))[1]["model"] == "small"
            status, answer = await w.get("/v1/models/select_by_role?role=cat")
            assert (status, answer["error"]["message"]) == (404, "No model found for role: cat")
            assert (await w.get("/v1/models/select_by_role?role=chat&top_n=none"))[0] == 400
            assert (await w.get("/v1/models/select_by_role"))[0] == 400

    play(story())


def test_unload_ends_an_idle_model(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            await w.post(ASK)
            _, answer, _ = await w.post(b"", "/unload?model=small")
            assert answer["unloading"][0]["state"] == "stopping"
            await w.until(lambda: w.proxy.drive.state.slots["small"].residency == "stopped")
            assert w.engines["small"].stops == 1
            assert (await w.post(b"", "/unload?model=smal"))[0] == 404

    play(story())
