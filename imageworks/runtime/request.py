"""A client's request body: what must be known of it, and the bytes that go to the engine.

Owns reading (one pass, top-level values stay the client's own bytes) and the changes the proxy makes: `model`
becomes the served name, sampling values fill silence, the stack's `params` and the variant that was asked for are
applied, a role bounds the answer, nothing else. Pure.
A remote image URL is refused here, because the engine would fetch it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec

from imageworks.contract import RoleTable, Route
from imageworks.runtime.errors import ApiError

Endpoint = Literal["chat/completions", "completions", "embeddings"]
Fields = Mapping[str, msgspec.Raw]
T = TypeVar("T")
_SHOWN = 60
_MAX_TOKENS = ("max_completion_tokens", "max_tokens")


class _Url(msgspec.Struct):
    url: str = ""


class _Part(msgspec.Struct):
    type: str = ""
    image_url: _Url | str | None = None
    video_url: _Url | str | None = None
    audio_url: _Url | str | None = None


class _Message(msgspec.Struct):
    content: str | list[_Part | str] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A readable request. `images` counts image parts of all messages."""

    endpoint: Endpoint
    fields: Fields
    model: str
    stream: bool
    images: int


@dataclass(frozen=True, slots=True)
class Shaped:
    """What is sent: the body, the header that says what was changed, and the parameters for the record."""

    body: bytes
    clamped: str | None
    params: Mapping[str, object]


def parse(endpoint: Endpoint, body: bytes) -> Request:
    """Read a body. Raises ApiError 400 that names the field at fault."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError as error:
        raise ApiError(400, "invalid_json", f"the body is not a JSON object: {error}") from None
    model = _read(fields, "model", str)
    if not model:
        raise ApiError(
            400, "missing_field", "the request names no model", param="model", hint="GET /v1/models lists the names"
        )
    stream = bool(_read(fields, "stream", bool))
    return Request(endpoint, fields, model, stream, _count_images(fields))


def _read(fields: Fields, name: str, kind: type[T]) -> T | None:
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=kind | None)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ApiError(400, "invalid_field", f"`{name}` cannot be read: {error}", param=name) from None


def _count_images(fields: Fields) -> int:
    messages = _read(fields, "messages", list[_Message]) or []
    parts = [part for message in messages if isinstance(message.content, list) for part in message.content]
    images = 0
    for part in parts:
        if isinstance(part, _Part):
            for link in (part.image_url, part.video_url, part.audio_url):
                _refuse_remote(link.url if isinstance(link, _Url) else link)
            images += part.image_url is not None
    return images


def _refuse_remote(url: str | None) -> None:
    if url is not None and url[:5].lower() != "data:":
        shown = url if len(url) <= _SHOWN else url[: _SHOWN - 1] + "…"
        hint = "send the bytes: data:image/jpeg;base64,…"
        raise ApiError(
            400,
            "remote_media_refused",
            f"media must be sent inline, not by address: {shown}",
            param="messages",
            hint=hint,
        )


def shape(request: Request, route: Route, contract: RoleTable | None) -> Shaped:
    """The body for this route's engine, every untouched value byte for byte as the client wrote it."""
    asked = {name: value for name, value in request.fields.items() if name not in route.strip}
    fields: dict[str, object] = {**asked, "model": route.served_name}
    clamped = None
    if request.endpoint != "embeddings":
        fields |= {name: value for name, value in route.sampling.items() if _silent(asked, name)}
        fields |= route.set
        fields |= route.variants.get(request.model.rpartition(":")[2], {})
        clamped = _bound(asked, fields, contract)
    return Shaped(msgspec.json.encode(fields), clamped, _params(fields))


def _silent(fields: Fields, name: str) -> bool:
    """Does the client say nothing about it? The two names of the answer's bound are one thing."""
    names = _MAX_TOKENS if name in _MAX_TOKENS else (name,)
    return all(bytes(fields.get(each, b"null")) == b"null" for each in names)


def _bound(asked: Fields, fields: dict[str, object], contract: RoleTable | None) -> str | None:
    """Apply a role's bound of the answer: lower what is asked for, fill in what is not."""
    if contract is None or contract.max_tokens is None:
        return None
    limit = contract.max_tokens
    given = {name: value for name in _MAX_TOKENS if (value := _read(asked, name, int)) is not None}
    if not given:
        default = fields.get("max_tokens")
        fields["max_tokens"] = min(limit, default) if isinstance(default, int) else limit
    too_many = [name for name, value in given.items() if value > limit]
    for name in too_many:
        fields[name] = limit
    return ", ".join(f"{name}={limit}" for name in too_many) or None


def _params(fields: Mapping[str, object]) -> dict[str, object]:
    """Parameters worth recording, None where neither client nor model says anything."""
    limit = next((fields[name] for name in _MAX_TOKENS if name in fields), None)
    values = {"max_tokens": limit, **{name: fields.get(name) for name in ("temperature", "top_p", "seed")}}
    return {name: _number(value) for name, value in values.items()}


def _number(value: object) -> object:
    if not isinstance(value, msgspec.Raw):
        return value
    found = msgspec.json.decode(value)
    return found if isinstance(found, int | float) else None
