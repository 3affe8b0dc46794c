"""What a client gets told when it cannot be served: one shape, a reason, and what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from imageworks.contract import Need

ASK = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1Pe"


def with_images(*urls: str, model: str = "eye") -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"model": model, "messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, *parts]}]}


Play = Callable[[Coroutine[Any, Any, None]], None]
Make = Callable[..., Any]


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
     (b"\xff\xfe", "invalid_json"), (b'{"model":"\xff"}', "invalid_json")],
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
