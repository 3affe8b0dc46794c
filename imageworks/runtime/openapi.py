"""GET /openapi.json: what the proxy serves, as an OpenAPI 3.1 document.

Owns the table of operations and the document that is made of it and of `endpoints.ENDPOINTS`; docs/api.md is written
from the same document. A path of the proxy that does not stand here fails a test. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from imageworks.runtime.endpoints import ENDPOINTS, Endpoint, Serving, paths
from imageworks.runtime.lease_request import TOKEN_HEADER
from imageworks.runtime.openapi_schemas import Schema, components, ref, request
from imageworks.runtime.queueing import EVENT, HEADER

EVENTS = "text/event-stream"
JSON = "application/json"
EVERYWHERE = (400, 403, 404, 500)
"""Any request may be malformed, come from a foreign page, name nothing, or find a bug."""
_ANSWERED = (400, 401, 403, 404, 410, 413, 415, 423, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a query, a path, or a header."""

    name: str
    what: str
    place: str = "query"
    schema: Schema = field(default_factory=lambda: {"type": "string"})
    required: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked. `answer` and `body` name components; `failures` are statuses beside EVERYWHERE."""

    method: str
    path: str
    what: str
    group: str
    answer: str
    body: str | None = None
    parameters: Sequence[Parameter] = ()
    failures: Sequence[int] = ()
    answers: Mapping[int, str] = field(default_factory=dict)
    kind: str = JSON


_ID = Parameter("id", "the lease", "path", required=True)
_LEASE_FAILURES = (409, 410, 422, 503)
OPERATIONS = (
    Operation("get", "/v1/models", "Models and roles of the running profile, in OpenAI's list shape", "Models", "Models"),
    Operation("get", "/v1/models/health", "How every model is", "Models", "Healths"),
    Operation(
        "get", "/v1/models/select_by_role", "Which model a role gets, and those behind it", "Models", "Selection",
        parameters=(
            Parameter("role", "the role", required=True),
            Parameter("profile", "of another profile than the running one"),
            Parameter("exclude_models", "models to leave out; repeated, or with commas"),
            Parameter("top_n", "how many", schema={"type": "integer", "minimum": 1}),
            Parameter("prefer_loaded", "a loaded model wins among equals", schema={"enum": ["1", "true", "0", "false"]}),
        ),
    ),
    Operation(
        "get", "/v1/models/{name}", "One model, by its id, an alias, `id:variant` or `role:name`", "Models", "Model",
        parameters=(Parameter("name", "any name that a request may use", "path", required=True),),
    ),
    Operation("get", "/v1/config/profile", "The running profile, its hashes, policy and budgets", "Operations", "Profile"),
    Operation("get", "/healthz", "The process answers", "Operations", "Alive"),
    Operation("get", "/readyz", "Can it serve?", "Operations", "Ready", answers={503: "Ready"}),
    Operation("get", "/running", "Models that are not simply stopped", "Operations", "Runnings"),
    Operation(
        "post", "/unload", "Unload one model, or all, each as soon as it is idle", "Operations", "Unloading",
        parameters=(Parameter("model", "one model; default: all"),),
    ),
    Operation(
        "post", "/v1/reload", "Read the routing table again and serve by it; what streams ends by the old one",
        "Operations", "Reloaded", failures=(409, 422, 503),
    ),
    Operation("get", "/openapi.json", "This document", "Operations", "Document"),
    Operation(
        "post", "/v1/gpu/lease", "A lease of GPU memory, at once or within `wait_s`", "Leases", "Lease", "AcquireBody",
        failures=_LEASE_FAILURES, answers={409: "Busy"},
    ),
    Operation(
        "post", "/v1/gpu/lease/{id}/renew", "The holder lives", "Leases", "Lease", "RenewBody", (_ID,), _LEASE_FAILURES
    ),
    Operation(
        "post", "/v1/gpu/lease/{id}/handover", "To another owner, or to a model", "Leases", "Lease", "HandoverBody",
        (_ID,), _LEASE_FAILURES,
    ),
    Operation(
        "post", "/v1/gpu/release", "The holder is done; its memory is given on when it is seen free", "Leases", "Lease",
        "ReleaseBody", failures=_LEASE_FAILURES,
    ),
    Operation(
        "post", "/v1/gpu/force_release", "A person ends somebody's lease", "Leases", "Lease", "ForceBody",
        failures=_LEASE_FAILURES,
    ),
    Operation(
        "post", "/v1/gpu/pardon", "A person says that what is in quarantine is free", "Leases", "Pardoned", "PardonBody",
        failures=_LEASE_FAILURES,
    ),
    Operation("get", "/v1/gpu/status", "One consistent moment of all GPUs", "Leases", "Status"),
    Operation(
        "get", "/v1/gpu/events", "Every move of a model or a lease, as server-sent events", "Leases", "Document",
        parameters=(Parameter("Last-Event-ID", "go on behind this one", "header"),), kind=EVENTS,
    ),
)  # fmt: skip


def document(version: str) -> dict[str, Any]:
    """The whole document for this version of ImageWorks."""
    found: dict[str, dict[str, Any]] = {}
    for path, name in paths().items():
        found.setdefault(path, {})["post"] = _engines(path, name, ENDPOINTS[name])
    for each in OPERATIONS:
        found.setdefault(each.path, {})[each.method] = _own(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ImageWorks",
            "version": version,
            "summary": "One URL for the models of one machine",
            "description": "Every error has the shape `Error`; `x-should-retry` says whether a later try may help.",
        },
        "servers": [{"url": "http://127.0.0.1:8100"}],
        "paths": found,
        "components": {
            "schemas": components(),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "where the stack declares keys"},
                "anthropic": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "the same key"},
            },
        },
        "security": [{}, {"key": []}, {"anthropic": []}],
    }  # fmt: skip


def _engines(path: str, name: Endpoint, serving: Serving) -> dict[str, Any]:
    kinds = ", ".join(sorted(serving.backends))
    able = f" The model needs the capability {serving.capability}." if serving.capability else ""
    content = {"multipart/form-data" if serving.form else JSON: {"schema": request(name)}}
    return {
        "operationId": "post" + path.replace("/", "_"),
        "tags": ["Inference"],
        "summary": serving.what,
        "description": f"Passed on to the engine of the model. Served by models of {kinds}.{able}",
        "parameters": [_parameter(parameter) for parameter in (*_OF_REQUESTS, *_status(name), *_passed(serving))],
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {"description": "What the engine says, byte for byte", "headers": _HEADERS, "content": _said(name)},
            **_failures(_ANSWERED, dict.fromkeys(_ANSWERED, "Failure")),
            "default": {"description": "A refusal of the engine, as it came"},
        },
    }


_OF_REQUESTS = (
    Parameter(TOKEN_HEADER, "`lease_id:token` of a lease that the model may live in", "header"),
    Parameter("x-request-id", "a name for the request, in records and logs", "header"),
)


def _status(name: Endpoint) -> tuple[Parameter, ...]:
    what = f"`events`: a stream that waits says so in events `{EVENT}`, else in comments"
    return (Parameter(HEADER, what, "header", schema={"enum": ["events"]}),) if _streams(name) else ()


def _passed(serving: Serving) -> tuple[Parameter, ...]:
    return tuple(Parameter(each, "passed on to the engine", "header") for each in serving.passes)


_HEADERS = {
    "x-request-id": {"schema": {"type": "string"}, "description": "the request's name in the records"},
    "x-imageworks-model": {"schema": {"type": "string"}, "description": "the model that answered"},
    "x-imageworks-clamped": {"schema": {"type": "string"}, "description": "what the role lowered"},
    "x-imageworks-tool-calls": {"schema": {"type": "string"}, "description": "calls that are text become calls"},
}


def _said(name: Endpoint) -> dict[str, Any]:
    if name == "audio/speech":
        return {"audio/*": {}, EVENTS: {}}
    return {JSON: {"schema": {"type": "object"}}} | ({EVENTS: {}} if _streams(name) else {})


def _streams(name: Endpoint) -> bool:
    return name not in ("embeddings", "rerank", "messages/count_tokens")


def _own(each: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": each.method + each.path.replace("/", "_").replace("{", "").replace("}", ""),
        "tags": [each.group],
        "summary": each.what,
        "responses": {
            "200": {"description": "As asked", "content": {each.kind: _answer(each)}},
            **_failures((*EVERYWHERE, *each.failures), each.answers),
        },
    }
    if each.parameters:
        found["parameters"] = [_parameter(parameter) for parameter in each.parameters]
    if each.body is not None:
        found["requestBody"] = {"required": True, "content": {JSON: {"schema": ref(each.body)}}}
    return found


def _answer(each: Operation) -> dict[str, Any]:
    return {} if each.kind == EVENTS else {"schema": ref(each.answer)}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.what,
        "required": parameter.required,
        "schema": parameter.schema,
    }


def _failures(statuses: Sequence[int], answers: Mapping[int, str]) -> dict[str, Any]:
    return {
        str(status): {
            "description": HTTPStatus(status).phrase,
            "content": {JSON: {"schema": ref(answers.get(status, "Error"))}},
        }
        for status in sorted({*statuses, *answers})
    }
