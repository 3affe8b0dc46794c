"""The shapes of bodies in the OpenAPI document.

Owns the component schemas: of calls that the proxy itself reads strictly they are made from the types that read them; of
what goes to engines they hold what the proxy looks at, and let the rest be. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from imageworks.runtime import lease_request as lease
from imageworks.runtime.endpoints import ENDPOINTS, Endpoint
from imageworks.runtime.snapshot import CallView, GpuView

Schema = Mapping[str, Any]
REF = "#/components/schemas/"
BODIES = (
    lease.AcquireBody,
    lease.RenewBody,
    lease.ReleaseBody,
    lease.ForceBody,
    lease.HandoverBody,
    lease.PardonBody,
)
TEXT: Schema = {"type": "string"}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
ANY: Schema = {}
MODEL: Schema = {
    "type": "string",
    "minLength": 1,
    "description": "an id, an alias, `id:variant`, `role:NAME` or `role:NAME@PROFILE`",
}
_MESSAGES: Schema = {"type": "array", "items": {"type": "object"}, "maxItems": 4096}
_STREAMING: Mapping[str, Schema] = {"stream": {"type": ["boolean", "null"]}}
_REQUESTS: Mapping[Endpoint, tuple[Mapping[str, Schema], tuple[str, ...]]] = {
    "chat/completions": ({"messages": _MESSAGES, **_STREAMING}, ("messages",)),
    "completions": ({"prompt": {"type": ["string", "array"]}, **_STREAMING}, ("prompt",)),
    "embeddings": ({"input": {"type": ["string", "array"]}}, ("input",)),
    "responses": ({"input": {"type": ["string", "array"]}, **_STREAMING}, ("input",)),
    "rerank": ({"query": {"type": ["string", "object"]}, "documents": {"type": ["array", "object"]}}, ("query", "documents")),
    "messages": ({"messages": _MESSAGES, "max_tokens": COUNT, **_STREAMING}, ("messages", "max_tokens")),
    "messages/count_tokens": ({"messages": _MESSAGES}, ("messages",)),
    "audio/speech": ({"input": TEXT, "voice": {"type": ["string", "object"]}}, ("input",)),
}  # fmt: skip
_FORM = {"file": {"type": "string", "format": "binary"}, "language": TEXT, "prompt": TEXT, "response_format": TEXT}


def array(of: Schema) -> Schema:
    """A list of one kind."""
    return {"type": "array", "items": of}


def ref(name: str) -> Schema:
    """A component by its name."""
    return {"$ref": REF + name}


def shape(*optional: str, **fields: Schema) -> Schema:
    """An object with these fields, all there but the `optional` ones; more may come with later versions."""
    return {"type": "object", "properties": fields, "required": [name for name in fields if name not in optional]}


def request(endpoint: Endpoint) -> Schema:
    """The body of a request to an engine, as far as the proxy looks at it."""
    if ENDPOINTS[endpoint].form:
        return {"type": "object", "properties": {"model": MODEL, **_FORM}, "required": ["model", "file"]}
    fields, required = _REQUESTS[endpoint]
    return {"type": "object", "properties": {"model": MODEL, **fields}, "required": ["model", *required]}


def components() -> dict[str, Any]:
    """Every named schema."""
    _, made = msgspec.json.schema_components([*BODIES, GpuView, CallView], ref_template=REF + "{name}")
    return {**made, **_OWN}


_ERROR = shape(message=TEXT, type=TEXT, code=TEXT, param=MAYBE_TEXT, hint=MAYBE_TEXT)
_LEASE = shape(
    lease_id=TEXT,
    token={**COUNT, "description": "shown in X-GPU-Lease-Token as `lease_id:token`"},
    tokens={"type": "object", "additionalProperties": COUNT, "description": "GPU -> its token"},
    gpus=array(TEXT),
    slots=array(COUNT),
    mib=COUNT,
    exclusive=FLAG,
    owner=TEXT,
    reason=TEXT,
    priority={"type": "integer"},
    request_id=TEXT,
    pid={"type": ["integer", "null"]},
    state=TEXT,
    ttl_s=NUMBER,
    expires_in_s=NUMBER,
    pids=array(COUNT),
)
_RUNNING = shape(
    model=TEXT,
    state=TEXT,
    inflight=COUNT,
    waiting=COUNT,
    reason=MAYBE_TEXT,
    lease=MAYBE_TEXT,
    tokens={"type": "object", "additionalProperties": COUNT},
)
_HEALTH = shape(
    model=TEXT,
    state=TEXT,
    health=TEXT,
    reason=MAYBE_TEXT,
    inflight=COUNT,
    looked_s_ago={"type": ["number", "null"]},
    heard_s_ago={"type": ["number", "null"]},
)
_CANDIDATE = {
    "model": TEXT, "priority": {"type": "integer"}, "vram_estimate_mb": COUNT, "quantization": MAYBE_TEXT, "via": TEXT, "why": TEXT,
}  # fmt: skip
_OWN: Mapping[str, Schema] = {
    "Error": shape(error=_ERROR),
    "Failure": {"type": "object", "description": "`Error`, or what the engine says, as it came"},
    "Model": shape(
        "aliases", "capabilities", "quantization", "context", "state", "weights",
        id=TEXT, object={"const": "model"}, created=COUNT, owned_by=TEXT, aliases=array(TEXT), capabilities=array(TEXT),
        quantization=MAYBE_TEXT, context=COUNT, state=TEXT, weights=TEXT,
    ),
    "Lease": _LEASE,
    "Busy": shape(error=_ERROR, position={"type": ["integer", "null"]}, estimate_s={"type": ["number", "null"]}),
    "Running": _RUNNING,
    "Health": _HEALTH,
    "Selection": shape(role=TEXT, profile=TEXT, models=array(shape(**_CANDIDATE)), **_CANDIDATE),
    "Models": shape(object={"const": "list"}, data=array(ref("Model"))),
    "Runnings": shape(running=array(ref("Running"))),
    "Unloading": shape(unloading=array(ref("Running"))),
    "Healths": shape(healthy=COUNT, total=COUNT, interval_s=NUMBER, models=array(ref("Health"))),
    "Ready": shape(ready=FLAG, reason=MAYBE_TEXT, profile=TEXT, plan_hash=TEXT, degraded=array(TEXT), reload=ref("LastReload")),
    "LastReload": shape(number=COUNT, failed=MAYBE_TEXT, restart_needed=array(TEXT)),
    "Alive": shape(status={"const": "ok"}),
    "Profile": shape(
        stack=TEXT, profile=TEXT, plan_hash=TEXT, bundle_hash=TEXT, unplaced={"type": "object", "additionalProperties": TEXT},
        policy={"type": "object"}, gpus=array({"type": "object"}), available_profiles=array(TEXT),
    ),
    "Status": shape(
        mode={"enum": ["enforce", "observe"]}, measured=FLAG, note=MAYBE_TEXT, gpus=array(ref("GpuView")),
        leases=array(ref("Lease")), waiting=array(ref("CallView")),
    ),
    "Pardoned": shape(pardoned=TEXT),
    "Reloaded": shape(
        plan_hash=TEXT, previous_plan_hash=TEXT, keys_missing={"type": "object", "additionalProperties": TEXT},
        models=shape(added=array(TEXT), removed=array(TEXT), changed=array(TEXT), restarted_when_idle=array(TEXT)),
        restart_needed=array(TEXT),
    ),
    "Document": {"type": "object"},
}  # fmt: skip
