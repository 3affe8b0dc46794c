"""A client's request body: what must be known of it, and the bytes that go to the engine.

Owns reading (one pass, top-level values stay the client's own bytes) and the changes the proxy makes: `model`
becomes the served name, sampling values fill silence, the stack's `params` and the variant that was asked for are
applied, a role bounds the answer, nothing else. Pure.
A remote image URL is refused here, because the engine would fetch it, or noted, where the proxy fetches it before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from imageworks.contract import RoleTable, Route
from imageworks.runtime import form as forms
from imageworks.runtime.elide import Body, Elided, Pieces, elide
from imageworks.runtime.endpoints import ENDPOINTS, Endpoint, Serving
from imageworks.runtime.errors import ApiError
from imageworks.runtime.media import Found, find, is_remote, refuse_remote
from imageworks.runtime.ollama.request import chat, translated
from imageworks.runtime.table import variant_of

Fields = Mapping[str, msgspec.Raw]
T = TypeVar("T")
_LARGEST = 2**63
_MAX_TOKENS = ("max_completion_tokens", "max_tokens")
_REAL = ("temperature", "top_p")
_RECORDED = (*_REAL, "seed")
_LIMITS = (*_MAX_TOKENS, "max_output_tokens")
_WORTH = frozenset((*_LIMITS, *_RECORDED))
MEDIA_FIELDS = frozenset({"messages", "input", "prompt", "query", "documents", "system"})
"""Where media may stand. Every other field is judged by its letters and its length, so it is read whole."""


class _Url(msgspec.Struct):
    url: str = ""


class _Part(msgspec.Struct):
    type: str = ""
    image_url: _Url | str | None = None
    video_url: _Url | str | None = None
    audio_url: _Url | str | None = None


class _Message(msgspec.Struct):
    content: msgspec.Raw = msgspec.Raw(b"null")


_ENCODE = msgspec.json.Encoder().encode
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT = msgspec.json.Decoder(str | None)
_FLAG = msgspec.json.Decoder(bool | None)
_COUNT = msgspec.json.Decoder(int | None)
_MESSAGES = msgspec.json.Decoder(list[_Message] | None)
_CONTENT = msgspec.json.Decoder(str | list[_Part | str] | None)
_PLAIN = (b'"', b"n")
"""How a content begins that has no parts."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """A readable request; a Struct, because one is made for every request. `images` counts image parts of all messages.

    `remote`: some of them are given by address, and must be fetched before an engine sees them.
    Values of `fields` are the client's own bytes, but for what `elided` holds of them (see `Elided.restore`).
    """

    endpoint: Endpoint
    fields: Fields
    model: str
    stream: bool
    images: int
    elided: Elided | None = None
    form: forms.Form | None = None
    video: bool = False
    remote: bool = False


class Shaped(msgspec.Struct, frozen=True, gc=False):
    """What is sent: the body in pieces, the header that says what was changed, and the values it was made of.

    `native`: the body is in the words of Ollama's own API.
    """

    pieces: Pieces
    clamped: str | None
    fields: Mapping[str, object]
    content_type: str = "application/json"
    native: bool = False

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return sum(map(len, self.pieces))

    @property
    def params(self) -> Mapping[str, object]:
        """Parameters worth recording; absent where neither client nor model says anything."""
        return {} if _WORTH.isdisjoint(self.fields) else _params(self.fields)

    @property
    def body(self) -> bytes:
        """The whole body, joined: a copy, where it has media."""
        return b"".join(self.pieces)


def parse(endpoint: Endpoint, body: Body, content_type: str = "", *, remote: bool = False) -> Request:
    """Read a body, which is not copied and must not change any more. Raises ApiError 400 that names the field at fault.

    `content_type` is looked at where the endpoint takes a form; `remote`: images of a chat may be given by address.
    """
    if ENDPOINTS[endpoint].form:
        form = forms.read(content_type, body)
        return Request(endpoint, form.fields, _model(form.fields), _streams(form.fields), 0, form=form)
    elided = elide(body)
    fields = _fields(elided.skeleton if elided else body)
    if elided is not None and any(elided.stands_in(fields[name]) for name in fields.keys() - MEDIA_FIELDS):
        elided, fields = None, _fields(body)
    model = _model(fields)
    media = ENDPOINTS[endpoint].media
    found = find(fields, media) if media else _find(fields, remote=remote and endpoint == "chat/completions")
    return Request(endpoint, fields, model, _streams(fields), found.images, elided, None, found.video, found.remote)


def _fields(text: Body) -> Fields:
    try:
        str(text, "utf-8")  # the decoder does not look into strings that nobody reads
        return _FIELDS.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, "invalid_json", f"the body is not a JSON object: {error}") from None


def _model(fields: Fields) -> str:
    model: str | None = _read(fields, "model", _TEXT)
    if not model:
        raise ApiError(
            400, "missing_field", "the request names no model", param="model", hint="GET /v1/models lists the names"
        )
    return model


def _streams(fields: Fields) -> bool:
    return "stream" in fields and bool(_read(fields, "stream", _FLAG))


def _read(fields: Fields, name: str, decoder: msgspec.json.Decoder[T]) -> T | None:
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(name, error) from None


def _unreadable(name: str, error: Exception) -> ApiError:
    return ApiError(400, "invalid_field", f"`{name}` cannot be read: {error}", param=name)


def _find(fields: Fields, *, remote: bool) -> Found:
    images, video, fetched = 0, False, False
    for message in _read(fields, "messages", _MESSAGES) or ():
        content = message.content
        if memoryview(content)[:1] not in _PLAIN:  # most messages are text, which nobody here needs decoded
            found = _find_in(content, remote=remote)
            images, video, fetched = images + found.images, video or found.video, fetched or found.remote
    return Found(images, video, fetched)


def _find_in(content: msgspec.Raw, *, remote: bool) -> Found:
    try:
        parts = _CONTENT.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable("messages", error) from None
    images, video, fetched = 0, False, False
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, _Part):
            image = _url(part.image_url)
            if remote and image and is_remote(image):
                fetched = True
            else:
                refuse_remote(image)
            for link in (part.video_url, part.audio_url):
                refuse_remote(_url(link))
            images += part.image_url is not None
            video = video or part.video_url is not None or part.type == "video_url"
    return Found(images, video, fetched)


def _url(link: _Url | str | None) -> str | None:
    return link.url if isinstance(link, _Url) else link


def shape(request: Request, route: Route, contract: RoleTable | None) -> Shaped:
    """The body for this route's engine, every untouched value byte for byte as the client wrote it, unless it is translated."""
    asked = request.fields
    if route.strip:
        asked = {name: value for name, value in asked.items() if name not in route.strip}
    fields: dict[str, object] = {**asked, "model": route.served_name}
    clamped = None
    if request.form is not None:
        form = request.form
        return Shaped(form.changed(route.served_name, route.strip), None, fields, form.content_type)
    serving = ENDPOINTS[request.endpoint]
    if serving.params:
        if route.sampling:
            _fill_in(asked, fields, route, serving)
        fields |= route.set
        if route.variants:
            fields |= variant_of(route, request.model) or {}
        clamped = _bound(asked, fields, contract, serving.limits)
    encoded = _ENCODE(fields)
    native = translated(route.backend, request.endpoint)
    if native:
        encoded = chat(encoded)
    pieces = (encoded,) if request.elided is None else request.elided.restore(encoded)
    return Shaped(pieces, clamped, fields, native=native)


def _fill_in(asked: Fields, fields: dict[str, object], route: Route, serving: Serving) -> None:
    """The model's sampling values where the client is silent, under the endpoint's names."""
    names = serving.sampling
    for given, value in route.sampling.items():
        name = given if names is None else names.get(given)
        if name is not None and _silent(asked, name):
            fields[name] = value


def _silent(fields: Fields, name: str) -> bool:
    """Does the client say nothing about it? The two names of the answer's bound are one thing."""
    names = _MAX_TOKENS if name in _MAX_TOKENS else (name,)
    return all(bytes(fields.get(each, b"null")) == b"null" for each in names)


def _bound(asked: Fields, fields: dict[str, object], contract: RoleTable | None, names: tuple[str, ...]) -> str | None:
    """Apply a role's bound of the answer: lower what is asked for, fill in what is not."""
    if contract is None or contract.max_tokens is None:
        return None
    limit = contract.max_tokens
    given = {name: value for name in names if (value := _read(asked, name, _COUNT)) is not None}
    if not given:
        default = fields.get(names[-1])
        fields[names[-1]] = min(limit, default) if isinstance(default, int) else limit
    too_many = [name for name, value in given.items() if value > limit]
    for name in too_many:
        fields[name] = limit
    return ", ".join(f"{name}={limit}" for name in too_many) or None


def max_tokens(request: Request, contract: RoleTable | None) -> int:
    """The longest answer that may come: what the client or the role bounds it to, else 0."""
    names = ENDPOINTS[request.endpoint].limits
    given = [value for name in names if (value := _read(request.fields, name, _COUNT)) is not None]
    limits = [*given, *((contract.max_tokens,) if contract is not None and contract.max_tokens is not None else ())]
    return min(limits, default=0)


def _params(fields: Mapping[str, object]) -> dict[str, object]:
    found = {name: _number(fields[name]) for name in _RECORDED if name in fields}
    limit = next((fields[name] for name in _LIMITS if name in fields), None)
    found |= {} if limit is None else {"max_tokens": _number(limit)}
    return {name: value for name, value in found.items() if isinstance(value, int) or name in _REAL}


def _number(value: object) -> object:
    """The number that is recorded; None for what is none, or none that a record can hold."""
    if isinstance(value, msgspec.Raw):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) >= _LARGEST:
        return None
    return value
