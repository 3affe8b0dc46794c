"""GET /v1/models/health: what a person or a dashboard sees of each model."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from imageworks.runtime.health import FALL
from imageworks.runtime.watch import Watch

Make = Callable[..., Any]
Play = Callable[[Coroutine[Any, Any, None]], None]
QUESTION = {"model": "a", "messages": [{"role": "user", "content": "x"}]}


async def rounds(w: Any, watch: Watch, count: int) -> None:
    for _ in range(count):
        before = watch.looked_s("a")
        await watch.once()
        await w.until(lambda before=before: watch.looked_s("a") != before)


def test_a_model_is_shown_as_what_it_is_doing_and_as_healthy_once_it_was_looked_at(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"a": {}, "b": {}}) as w:
            watch = w.proxy.watch = Watch(w.proxy.drive, w.engines, {}, 0.0)
            _, answer = await w.get("/v1/models/health")
            assert (answer["healthy"], answer["total"]) == (0, 2)
            assert [row["health"] for row in answer["models"]] == ["stopped", "stopped"]
            assert (await w.post(QUESTION))[0] == 200
            _, answer = await w.get("/v1/models/health")
            assert answer["models"][0]["health"] == "unknown"
            assert answer["models"][0]["heard_s_ago"] is not None
            await rounds(w, watch, 1)
            _, answer = await w.get("/v1/models/health")
            assert (answer["healthy"], answer["models"][0]["health"], answer["models"][0]["reason"]) == (
                1,
                "healthy",
                None,
            )

    play(story())


def test_a_suspect_is_shown_with_the_reason_and_a_dead_one_with_its_failure(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"a": {}}) as w:
            watch = w.proxy.watch = Watch(w.proxy.drive, w.engines, {}, 0.0)
            assert (await w.post(QUESTION))[0] == 200
            w.engines["a"].loaded.clear()  # /health says 503 from now
            await rounds(w, watch, FALL - 1)
            (row,) = (await w.get("/v1/models/health"))[1]["models"]
            assert (row["state"], row["health"], row["reason"]) == (
                "ready",
                "suspect",
                "its health endpoint is failing",
            )
            await rounds(w, watch, 1)
            await w.until(lambda: w.engines["a"].stops == 1)
            (row,) = (await w.get("/v1/models/health"))[1]["models"]
            assert row["health"] == row["state"] != "ready"
            assert row["reason"] == "its health endpoint is failing"

    play(story())
