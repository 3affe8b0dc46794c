"""The OpenAPI document says what the proxy does: every path, and every answer by its schema."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, cast

import jsonschema
import pytest
from aiohttp import web

from imageworks.contract import Gpu
from imageworks.runtime.app import application
from imageworks.runtime.openapi import document

Make = Callable[..., Any]
Play = Callable[[Coroutine[Any, Any, None]], None]
DOCUMENT = document("1")
OPERATIONS = [(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods]
LEASE = {"vram_mib": 100, "owner": "me"}


class _Reloader:
    """Its endpoint is there; nobody asks it."""


@pytest.fixture
def speed() -> str:
    return "fast"


def schema(method: str, path: str, status: int) -> Any:
    """The schema of an answer; KeyError where the document knows no such answer."""
    said = DOCUMENT["paths"][path][method]["responses"][str(status)]
    return {**said["content"]["application/json"]["schema"], "components": DOCUMENT["components"]}


def holds(method: str, path: str, status: int, answer: Any) -> None:
    jsonschema.Draft202012Validator(schema(method, path, status)).validate(answer)


def _references(value: object) -> Iterator[str]:
    for found in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _references(found)
    if isinstance(value, dict) and isinstance(value.get("$ref"), str):
        yield value["$ref"]


def test_every_path_is_in_the_document_and_no_other(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            app = application(w.proxy, cast("Any", _Reloader()))
            routes = (route for route in app.router.routes() if route.method != "HEAD" and route.resource is not None)
            served = {(route.method.lower(), cast("web.Resource", route.resource).canonical) for route in routes}
            assert served == set(OPERATIONS)

    play(story())


def test_it_is_a_document_of_openapi_3_1_whose_references_lead_somewhere() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    for found in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(found)
    names = {reference.rpartition("/")[2] for reference in _references(DOCUMENT)}
    assert names
    assert names <= set(DOCUMENT["components"]["schemas"])
    identities = [methods[method]["operationId"] for methods in DOCUMENT["paths"].values() for method in methods]
    assert len(identities) == len(set(identities))
    for path, methods in DOCUMENT["paths"].items():
        for each in methods.values():
            declared = {parameter["name"] for parameter in each.get("parameters", ()) if parameter["in"] == "path"}
            assert declared == set(path.split("{")[1::2] and [part.partition("}")[0] for part in path.split("{")[1:]])


def test_what_is_served_is_the_document(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            status, found = await w.get("/openapi.json")
            assert (status, found["paths"]) == (200, json.loads(json.dumps(DOCUMENT["paths"])))

    play(story())


def test_views_answer_as_the_document_says(world: Make, role: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}, roles={"chat": role("small")}, gpus=(Gpu(0, 20000, 24576),)) as w:
            await w.post({"model": "small", "messages": []})
            for path, query in (
                ("/v1/models", ""), ("/v1/models/health", ""), ("/v1/models/select_by_role", "?role=chat"),
                ("/v1/config/profile", ""), ("/healthz", ""), ("/readyz", ""), ("/running", ""), ("/v1/gpu/status", ""),
                ("/openapi.json", ""),
            ):  # fmt: skip
                status, answer = await w.get(path + query)
                assert status == 200, path
                holds("get", path, status, answer)
            status, answer = await w.get("/v1/models/small")
            holds("get", "/v1/models/{name}", status, answer)
            for path in ("/v1/models/select_by_role", "/v1/models/select_by_role?role=none"):
                status, answer = await w.get(path)
                holds("get", "/v1/models/select_by_role", status, answer)
            status, answer, _ = await w.post({}, path="/unload?model=small")
            holds("post", "/unload", status, answer)
            w.proxy.ending = True
            status, answer = await w.get("/readyz")
            assert status == 503
            holds("get", "/readyz", status, answer)

    play(story())


def test_leases_answer_as_the_document_says(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}, gpus=(Gpu(0, 20000, 24576),)) as w:

            async def ask(path: str, body: dict[str, Any], expected: int, template: str = "") -> Any:
                status, answer, _ = await w.post(body, path=path)
                assert status == expected, answer
                holds("post", template or path, status, answer)
                return answer

            lease = await ask("/v1/gpu/lease", {**LEASE, "exclusive": True}, 200)
            await ask("/v1/gpu/lease", {**LEASE, "vram_mib": 19999}, 409)
            await ask("/v1/gpu/lease", {**LEASE, "vram_mib": 10**6}, 422)
            await ask("/v1/gpu/lease", {"owner": 7}, 400)
            token = {"token": lease["token"]}
            renew, handover = "/v1/gpu/lease/{id}/renew", "/v1/gpu/lease/{id}/handover"
            await ask(renew.replace("{id}", lease["lease_id"]), token, 200, renew)
            await ask(renew.replace("{id}", "none"), token, 404, renew)
            await ask(handover.replace("{id}", lease["lease_id"]), {**token, "owner": "you"}, 200, handover)
            status, answer = await w.get("/v1/gpu/status")
            assert answer["leases"]
            holds("get", "/v1/gpu/status", status, answer)
            await ask("/v1/gpu/pardon", {"holder": "small", "actor": "me"}, 404)
            await ask("/v1/gpu/force_release", {"lease_id": lease["lease_id"], "actor": "me"}, 200)

    play(story())


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/chat/completions", b"{", 400),
        ("/v1/chat/completions", b'{"model":"none"}', 404),
        ("/v1/embeddings", b'{"model":"small","input":"x"}', 400),
        ("/v1/audio/transcriptions", b'{"model":"small"}', 415),
        ("/v1/messages", b'{"model":"small","nonsense":1}', 400),
        ("/v1/completions", b'{"model":"small","prompt":"' + b"x" * (1 << 21) + b'"}', 413),
    ],
)
def test_refusals_are_those_of_the_document(world: Make, play: Play, path: str, body: bytes, expected: int) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            status, answer, _ = await w.post(body, path=path)
            assert status == expected
            holds("post", path, status, answer)

    play(story())


def test_a_start_does_not_wait_for_the_document() -> None:
    ask = "import sys, imageworks.runtime.app; sys.exit('imageworks.runtime.openapi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", ask], check=False).returncode == 0
