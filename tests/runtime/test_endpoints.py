"""Every endpoint of the table reaches the engine that serves it, and nothing else reaches any engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict

from imageworks.contract import ClientKey, Secret
from imageworks.runtime.endpoints import ALL, ENDPOINTS, paths

Make = Callable[..., Any]
Play = Callable[[Coroutine[Any, Any, None]], None]
EVERYTHING = ("chat", "vision", "embedding", "rerank", "audio")
JSON = [name for name, serving in ENDPOINTS.items() if not serving.form]
FORMS = [name for name, serving in ENDPOINTS.items() if serving.form]
HI = [{"role": "user", "content": "hi"}]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1Pe"
SURFACES_OF_ENGINES = (
    "POST /invocations", "POST /collective_rpc", "POST /sleep", "POST /wake_up", "GET /is_sleeping", "POST /pause",
    "POST /update_weights", "POST /load", "POST /v1/load_lora_adapter", "POST /v1/unload_lora_adapter", "GET /server_info",
    "POST /reset_prefix_cache", "POST /tokenize", "POST /detokenize", "POST /pooling", "POST /classify", "POST /score",
    "POST /inference/v1/generate", "POST /start_profile", "GET /version", "GET /v1/version", "POST /v2/rerank",
    "GET /props", "POST /props", "GET /slots", "POST /slots/0?action=erase", "POST /lora-adapters", "POST /completion",
    "POST /infill", "POST /apply-template", "POST /models/load", "POST /models/unload", "GET /cors-proxy", "POST /tools",
    "POST /v1/chat/completions/control", "POST /api/pull", "POST /api/push", "POST /api/create", "POST /api/copy",
    "DELETE /api/delete", "POST /api/generate", "POST /api/chat", "POST /api/blobs/sha256:0", "GET /api/tags",
    "POST /api/embed", "GET /v1/responses/resp_1", "POST /v1/responses/resp_1/cancel", "DELETE /v1/models/small",
    "POST /v1/files", "POST /v1/batches", "POST /v1/fine_tuning/jobs", "POST /v1/images/generations", "POST /v1/realtime",
    "GET /docs", "GET /redoc", "POST /v1", "POST /", "GET /metrics/", "POST /v1/chat/completions/", "PUT /v1/completions",
    "GET /v1/chat/completions", "DELETE /v1/embeddings", "PATCH /v1/messages", "POST /v1/models",
    "POST /V1/chat/completions", "POST /v1//chat/completions", "POST /v1/chat/../invocations", "POST /v1/%69nvocations",
)  # fmt: skip


BY_ENGINE = {
    "vllm": "chat/completions completions embeddings responses rerank messages messages/count_tokens audio/transcriptions audio/translations",
    "llamacpp": "chat/completions completions embeddings responses rerank messages messages/count_tokens audio/transcriptions",
    "ollama": "chat/completions completions embeddings responses messages audio/transcriptions audio/speech",
    "openai": " ".join(ENDPOINTS),
}
"""What each kind of engine has, by its own documentation and source."""


def form(model: str, **more: str) -> aiohttp.FormData:
    data = aiohttp.FormData()
    for name, value in {"model": model, **more}.items():
        data.add_field(name, value)
    data.add_field("file", b"RIFF\r\n--not-the-boundary\r\n\x00\xff", filename="a b.wav", content_type="audio/wav")
    return data


@pytest.fixture
def speed() -> str:
    """Each endpoint's way is one; the three that have two are told apart elsewhere."""
    return "fast"


def test_the_table_says_what_each_kind_of_engine_has() -> None:
    assert BY_ENGINE.keys() == ALL
    for kind, names in BY_ENGINE.items():
        assert {name for name, serving in ENDPOINTS.items() if kind in serving.backends} == set(names.split()), kind


@pytest.mark.parametrize("name", JSON)
def test_a_json_endpoint_reaches_the_engine_under_its_own_name_with_the_engines_model(
    world: Make, play: Play, name: str
) -> None:
    async def story() -> None:
        async with world({"small": {"backend": "openai", "capabilities": EVERYTHING}}) as w:
            for path in [path for path, endpoint in paths().items() if endpoint == name]:
                assert (await w.post({"model": "small", "metadata": {"kept": [1.50]}}, path=path))[0] == 200
            engine = w.engines["small"]
            assert set(engine.paths) == {f"/v1/{name}"}
            assert engine.seen[0]["model"] == "served-small"
            assert b'{"kept": [1.5]}' in engine.bodies[0]

    play(story())


@pytest.mark.parametrize("name", FORMS)
def test_a_form_reaches_the_engine_byte_for_byte_but_for_the_model(world: Make, play: Play, name: str) -> None:
    async def story() -> None:
        async with world({"ear": {"backend": "openai", "capabilities": ("audio",), "strip": ("prompt",)}}) as w:
            sent = form("ear", prompt="secret", language="de", temperature="0.2")()
            body = await sent.as_bytes()
            async with w.http.post(f"/v1/{name}", data=body, headers=sent.headers) as answer:
                assert answer.status == 200, await answer.text()
            engine = w.engines["ear"]
            boundary = sent.headers["Content-Type"].partition("boundary=")[2].encode()
            parts = body.split(b"--" + boundary)
            expected = [part for part in parts if b"secret" not in part]
            expected[1] = expected[1].replace(b"ear", b"served-ear")
            assert engine.bodies == [(b"--" + boundary).join(expected)]
            assert engine.headers[0]["Content-Type"] == sent.headers["Content-Type"]
            assert engine.paths == [f"/v1/{name}"]

    play(story())


@pytest.mark.parametrize(
    ("name", "backend"),
    [(name, kind) for name, serving in ENDPOINTS.items() for kind in sorted(ALL - serving.backends)],
)
def test_an_endpoint_that_a_kind_of_engine_lacks_is_refused_with_who_has_it(
    world: Make, play: Play, name: str, backend: str
) -> None:
    async def story() -> None:
        routes = {
            "small": {"backend": backend, "capabilities": EVERYTHING},
            "far": {"backend": "openai", "capabilities": EVERYTHING},
        }
        async with world(routes) as w:
            data = form("small") if ENDPOINTS[name].form else None  # type: ignore[index]
            json = None if data else {"model": "small"}
            async with w.http.post(f"/v1/{name}", data=data, json=json) as answer:
                error = (await answer.json())["error"]
                assert (answer.status, error["code"]) == (400, "endpoint_not_served")
                assert f"/v1/{name}" in error["message"]
                assert "`far`" in error["hint"]
            assert not w.engines["small"].paths

    play(story())


@pytest.mark.parametrize("name", [name for name, serving in ENDPOINTS.items() if serving.capability])
def test_an_endpoint_wants_its_capability_and_names_the_models_that_have_it(world: Make, play: Play, name: str) -> None:
    serving = ENDPOINTS[name]  # type: ignore[index]

    async def story() -> None:
        async with world({"small": {}, "able": {"capabilities": (serving.capability,)}}) as w:
            data = form("small") if serving.form else None
            async with w.http.post(f"/v1/{name}", data=data, json=None if data else {"model": "small"}) as answer:
                error = (await answer.json())["error"]
                assert (answer.status, error["code"]) == (400, "capability_missing")
                assert "`able`" in error["hint"]

    play(story())


def test_what_is_no_endpoint_of_ours_never_reaches_an_engine(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {"capabilities": EVERYTHING}}) as w:
            for line in SURFACES_OF_ENGINES:
                method, _, path = line.partition(" ")
                reader, writer = await asyncio.open_connection("127.0.0.1", int(w.url.rpartition(":")[2]))
                body = b'{"model":"small","messages":[]}'
                head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode() + body)
                answer = await reader.read()
                writer.close()
                assert answer.split(b" ")[1] in (b"400", b"404", b"405"), (line, answer)
                assert b'"error":{"message":' in answer, line
            assert w.engines["small"].starts == 0

    play(story())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://10.0.0.1/"}]}]}),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "file:///etc/passwd"}]}]}),
        ("/v1/responses", {"input": "hi", "tools": [{"type": "mcp", "server_url": "http://169.254.169.254/"}]}),
        ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://x/"}}]}]}),
        ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [
            {"type": "document", "source": {"type": "url", "url": "http://x/"}}]}]}]}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "\\\\x"}}]}]}),
        ("/v1/rerank", {"query": "q", "documents": [{"content": [{"type": "image_url", "image_url": {"url": "https://x/"}}]}]}),
    ],
)  # fmt: skip
def test_media_by_address_is_refused_in_every_dialect(world: Make, play: Play, path: str, body: dict[str, Any]) -> None:
    async def story() -> None:
        async with world({"small": {"backend": "vllm", "capabilities": EVERYTHING}}) as w:
            status, answer, _ = await w.post({"model": "small", **body}, path=path)
            assert (status, answer["error"]["code"]) == (400, "remote_media_refused")
            assert not w.engines["small"].starts

    play(story())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"}]}]}),
        ("/v1/messages", {"max_tokens": 5, "messages": [{"role": "user", "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}]}]}),
    ],
)  # fmt: skip
def test_images_are_seen_in_every_dialect(world: Make, play: Play, path: str, body: dict[str, Any]) -> None:
    async def story() -> None:
        routes = {"small": {}, "eye": {"capabilities": ("chat", "vision"), "images_max": 1}}
        async with world(routes) as w:
            status, answer, _ = await w.post({"model": "small", **body}, path=path)
            assert (status, answer["error"]["code"]) == (400, "capability_missing")
            assert (await w.post({"model": "eye", **body}, path=path))[0] == 200

    play(story())


def test_an_address_in_a_tools_arguments_is_not_media(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            call = {"type": "tool_use", "id": "t", "name": "open", "input": {"image_url": "https://example.org/"}}
            body = {"model": "small", "max_tokens": 5, "messages": [*HI, {"role": "assistant", "content": [call]}]}
            assert (await w.post(body, path="/v1/messages"))[0] == 200

    play(story())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/chat/completions", {"temperature": 0.5, "top_k": 7, "min_p": 0.1, "max_tokens": 9}),
        ("/v1/completions", {"temperature": 0.5, "top_k": 7, "min_p": 0.1, "max_tokens": 9}),
        ("/v1/responses", {"temperature": 0.5, "top_k": 7, "max_output_tokens": 9}),
        ("/v1/messages", {"temperature": 0.5, "top_k": 7, "max_tokens": 9}),
        ("/v1/messages/count_tokens", {}),
        ("/v1/embeddings", {}),
        ("/v1/rerank", {}),
    ],
)
def test_sampling_values_have_each_endpoints_names(
    world: Make, play: Play, path: str, expected: dict[str, Any]
) -> None:
    sampling = {"temperature": 0.5, "top_k": 7, "min_p": 0.1, "max_tokens": 9}

    async def story() -> None:
        async with world({"small": {"capabilities": EVERYTHING, "sampling": sampling}}) as w:
            assert (await w.post({"model": "small"}, path=path))[0] == 200
            assert w.engines["small"].seen == [{"model": "served-small", **expected}]

    play(story())


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_engines_get_the_headers_of_anthropics_dialect_and_no_other_of_the_client(
    path: str, *, stream: bool, world: Make, play: Play
) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            given = [
                ("Anthropic-Version", "2023-06-01"), ("anthropic-beta", "tools-1"), ("anthropic-beta", "cache-2"),
                ("anthropic-client", "x"), ("x-api-key", "secret"), ("Cookie", "a=b"), ("X-Forwarded-For", "10.0.0.1"),
            ]  # fmt: skip
            body = {"model": "small", "max_tokens": 5, "messages": HI, "stream": stream}
            async with w.http.post(path, json=body, headers=CIMultiDict(given)) as answer:
                assert answer.status == 200
            found = {name.lower(): value for name, value in w.engines["small"].headers[-1].items()}
            anthropic = {"anthropic-version": "2023-06-01", "anthropic-beta": "tools-1, cache-2"}
            expected = {} if path == "/v1/chat/completions" else anthropic
            assert {name: value for name, value in found.items() if name.startswith("anthropic")} == expected
            assert not {"x-api-key", "cookie", "x-forwarded-for"} & found.keys()
            assert found["content-type"] == "application/json"

    play(story())


def test_a_header_that_no_engine_could_read_is_refused(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            ask = {"model": "small", "max_tokens": 5, "messages": HI}
            status, answer, _ = await w.post(ask, path="/v1/messages", headers={"anthropic-beta": "caf\u00e9"})
            assert (status, w.engines["small"].hits) == (400, 0)
            assert "anthropic-beta" in str(answer)

    play(story())


@pytest.mark.parametrize(("path", "name"), [("/v1/responses", "max_output_tokens"), ("/v1/messages", "max_tokens")])
def test_a_role_bounds_the_answer_of_every_dialect(world: Make, role: Make, play: Play, path: str, name: str) -> None:
    async def story() -> None:
        async with world({"small": {}}, roles={"chat": role("small", max_tokens=16)}) as w:
            status, _, headers = await w.post({"model": "role:chat", name: 99}, path=path)
            assert (status, headers["x-imageworks-clamped"]) == (200, f"{name}=16")
            await w.post({"model": "role:chat"}, path=path)
            assert [seen[name] for seen in w.engines["small"].seen] == [16, 16]

    play(story())


def test_anthropics_clients_are_told_in_their_own_words_when_the_engine_dies(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            engine = w.engines["small"]
            engine.pieces = (b'event: message_start\ndata: {"type":"message_start"}\n\n', b"never")
            engine.dies_mid_answer = True
            engine.go_on.clear()
            ask = {"model": "small", "max_tokens": 5, "messages": HI, "stream": True}
            async with w.http.post("/v1/messages", json=ask) as answer:
                body = await answer.content.readuntil(b"\n\n")
                assert body == engine.pieces[0]
                engine.go_on.set()
                body = await answer.read()
            assert b'event: error\ndata: {"type":"error","error":{"type":"backend_error"' in body
            assert b"message_stop" not in body

    play(story())


def test_anthropics_clients_show_their_key_in_their_own_way(world: Make, play: Play) -> None:
    keys = (ClientKey("boss", Secret("BOSS", "KEY_BOSS")),)

    async def story() -> None:
        async with world({"small": {}}, keys=keys, environ={"KEY_BOSS": "boss-key"}) as w:
            ask = {"model": "small", "max_tokens": 5, "messages": HI}
            for headers, expected in (
                ({"x-api-key": "boss-key"}, 200),
                ({"x-api-key": "wrong"}, 401),
                ({"x-api-key": "boss-key", "Authorization": "Bearer wrong"}, 401),
                ({}, 401),
            ):
                assert (await w.post(ask, path="/v1/messages", headers=headers))[0] == expected, headers
            assert "x-api-key" not in w.engines["small"].headers[0]

    play(story())
