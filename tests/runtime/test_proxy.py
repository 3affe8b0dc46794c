"""The proxy as a client sees it, over real sockets and engines that do as they are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import openai
import pytest

from imageworks.contract import Need, Policy
from imageworks.runtime.app import drain

ASK = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
ONE_AT_A_TIME = Policy("load_unload", 1, 4096, ())
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def with_images(*urls: str, model: str = "eye") -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"model": model, "messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, *parts]}]}


@pytest.fixture
def play() -> Callable[[Coroutine[Any, Any, None]], None]:
    def run(story: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(20):
                await story

        asyncio.run(bounded())

    return run


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


def test_the_engine_gets_its_own_name_and_every_other_byte_of_the_client(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {"sampling": {"temperature": 0.25, "top_k": 40}}}) as w:
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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("smal", ("model_not_found", "did you mean `small`?")),
        ("chat", ("model_not_found", "did you mean `role:chat`")),
        ("role:chta", ("role_not_found", "did you mean `chat`?")),
        ("role:chat@huge", ("profile_not_running", "ask for `role:chat`")),
        ("far", ("model_not_placed", "GET /v1/models")),
    ],
)
def test_a_name_that_is_unknown_says_what_is_close(
    world: Make, role: Make, play: Play, name: str, expected: tuple[str, str]
) -> None:
    code, hint = expected

    async def story() -> None:
        async with world({"small": {}}, roles={"chat": role("small")}, unplaced={"far": "needs a GPU"}) as w:
            status, answer, headers = await w.post(ASK | {"model": name})
            assert (status, answer["error"]["code"], headers["x-should-retry"]) == (404, code, "false")
            assert hint in answer["error"]["hint"]
            assert headers["x-request-id"]

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


def test_a_model_that_cannot_start_gives_its_root_cause_and_no_retry(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            w.engines["small"].dies_at_start = "0.1 I loading\nerror: failed to open GGUF file\nbye"
            status, answer, headers = await w.post(ASK)
            assert (status, answer["error"]["code"], headers["x-should-retry"]) == (503, "start_failed", "false")
            assert "failed to open GGUF file" in answer["error"]["message"]
            status, answer, headers = await w.post(ASK)
            assert (answer["error"]["code"], headers["Retry-After"]) == ("model_resting", "5")
            assert w.engines["small"].starts == 1

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

    play(story())


def test_images_go_only_to_models_that_see_and_the_error_says_which(world: Make, role: Make, play: Play) -> None:
    async def story() -> None:
        eye = {"capabilities": ("chat", "vision"), "images_max": 2}
        caption = role("eye", requires=("vision",), images_max=1)
        async with world({"small": {}, "eye": eye}, roles={"caption": caption, "chat": role("small", "eye")}) as w:
            assert (await w.post(with_images(PIXEL, PIXEL)))[0] == 200
            status, answer, _ = await w.post(with_images(PIXEL, model="small"))
            assert (status, answer["error"]["code"]) == (400, "capability_missing")
            assert answer["error"]["hint"] == "ask for `role:caption`, `eye`"
            status, answer, _ = await w.post(with_images(PIXEL, PIXEL, PIXEL))
            assert (status, answer["error"]["code"]) == (400, "too_many_images")
            status, answer, _ = await w.post(with_images(PIXEL, PIXEL, model="role:caption"))
            assert "takes 1 in one request" in answer["error"]["message"]
            _, _, headers = await w.post(with_images(PIXEL, model="role:chat"))
            assert headers["x-imageworks-model"] == "eye"

    play(story())


@pytest.mark.parametrize("url", ["http://127.0.0.1/x.png", "https://h/x", "file:///etc/passwd", " data:x", ""])
def test_media_by_address_is_refused_because_the_engine_would_fetch_it(world: Make, play: Play, url: str) -> None:
    async def story() -> None:
        async with world({"eye": {"capabilities": ("vision",), "images_max": 1}}) as w:
            status, answer, _ = await w.post(with_images(url))
            assert (status, answer["error"]["code"]) == (400, "remote_media_refused")
            assert w.engines["eye"].hits == 0

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


def test_missing_weights_are_said_with_the_command_and_a_role_uses_what_is_there(
    world: Make, role: Make, play: Play, tmp_path: Path
) -> None:
    async def story() -> None:
        big = {"needs": (Need("{models}/big.gguf", "hf download org/big"),)}
        async with world({"big": big, "small": {}}, roles={"chat": role("big", "small"), "only": role("big")}) as w:
            status, answer, _ = await w.post(ASK | {"model": "big"})
            assert (status, answer["error"]["code"], answer["error"]["hint"]) == (
                503,
                "weights_missing",
                "hf download org/big",
            )
            assert str(tmp_path / "big.gguf") in answer["error"]["message"]
            assert (await w.post(ASK | {"model": "role:only"}))[1]["error"]["code"] == "weights_missing"
            assert (await w.post(ASK | {"model": "role:chat"}))[2]["x-imageworks-model"] == "small"
            (tmp_path / "big.gguf").touch()
            assert (await w.post(ASK | {"model": "role:chat"}))[2]["x-imageworks-model"] == "big"

    play(story())


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"{", "invalid_json"), (b"[]", "invalid_json"), (b"{}", "missing_field"), (b'{"model":3}', "invalid_field"),
     (b'{"model":"small","stream":"yes"}', "invalid_field"), (b'{"model":"small","messages":{}}', "invalid_field"),
     (b"\xff\xfe", "invalid_json"), (b'{"model":"\xff"}', "invalid_field")],
)  # fmt: skip
def test_a_body_that_cannot_be_read_is_the_clients_fault(world: Make, play: Play, body: bytes, code: str) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            status, answer, _ = await w.post(body)
            assert (status, answer["error"]["code"]) == (400, code)

    play(story())


def test_a_body_over_the_limit_is_refused_before_it_is_read(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}, body_limit_bytes=1000) as w:
            status, answer, _ = await w.post(b"x" * 1001)
            assert (status, answer["error"]["code"]) == (413, "body_too_large")

            async def endless() -> Any:
                while True:
                    yield b"x" * 400

            async with w.http.post("/v1/chat/completions", data=endless()) as answer:
                assert answer.status == 413

    play(story())


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "evil.example"}, 403), ({"Host": "localhost:1"}, 200), ({"Host": "[::1]:1"}, 200),
     ({"Origin": "https://evil.example"}, 403), ({"Origin": "http://localhost:3000"}, 200), ({"Origin": "null"}, 403)],
)  # fmt: skip
def test_only_this_machine_is_served(world: Make, play: Play, headers: dict[str, str], status: int) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            assert (await w.get("/healthz", headers=headers))[0] == status

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


def test_a_full_queue_says_try_again(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}, queue=1) as w:
            w.engines["small"].loaded.clear()
            first = asyncio.create_task(w.post(ASK))
            await w.until(lambda: w.proxy.drive.state.waiting)
            status, answer, headers = await w.post(ASK)
            assert (status, answer["error"]["code"], headers["x-should-retry"]) == (429, "queue_full", "true")
            w.engines["small"].loaded.set()
            assert (await first)[0] == 200

    play(story())


def test_a_wait_that_is_too_long_is_ended(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}, queue_wait_s=0.05) as w:
            w.engines["small"].loaded.clear()
            status, answer, _ = await w.post(ASK)
            assert (status, answer["error"]["code"]) == (503, "queue_timeout")
            assert "starting" in answer["error"]["message"]

    play(story())


def test_an_answer_later_than_the_roles_deadline_is_a_timeout(world: Make, role: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}, roles={"chat": role("small", deadline_s=0.3)}) as w:
            await w.post(ASK)
            w.engines["small"].go_on.clear()
            status, answer, _ = await w.post(ASK | {"model": "role:chat"})
            assert (status, answer["error"]["code"]) == (504, "deadline_exceeded")
        assert w.lines()[1]["outcome"] == "timeout"

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


def test_embeddings_are_asked_only_of_models_that_embed(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {"sampling": {"temperature": 1.0}}, "vec": {"capabilities": ("embedding",)}}) as w:
            status, answer, _ = await w.post({"model": "small", "input": "x"}, "/v1/embeddings")
            assert (status, answer["error"]["hint"]) == (400, "ask for `vec`")
            assert (await w.post({"model": "vec", "input": "x"}, "/v1/embeddings"))[0] == 200

    play(story())


def test_a_path_that_is_not_there_has_the_same_error_shape(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            status, answer = await w.get("/nowhere")
            assert (status, answer["error"]["code"], json.dumps(answer["error"]["param"])) == (404, "not_found", "null")

    play(story())
