"""What the proxy does to a conversation before a model sees it: history and images, each with its off switch.

Owns the switches (environment at start, a header for one request) and the change of `messages`; what is kept is
decided in `history`, what an image may be in `pictures`, and `shrink` makes one smaller. Everything that was changed is
told in a response header and in the record.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from imageworks.contract import ContractError, History, HistoryRule, ImageRule
from imageworks.runtime import history
from imageworks.runtime.elide import Elided
from imageworks.runtime.errors import ApiError
from imageworks.runtime.history import Cut, Room
from imageworks.runtime.media import is_remote
from imageworks.runtime.pictures import look, sniff
from imageworks.runtime.request import Request

HEADER = "x-imageworks-policies"
"""Request header: `history=off, images=off` for an app that does it itself."""
VISION_VARIABLE, REASONING_VARIABLE = "CHAT_PROXY_VISION_TRUNCATE_HISTORY", "CHAT_PROXY_REASONING_TRUNCATE_HISTORY"
_ON, _OFF = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})
_SWITCHED_ON = HistoryRule(1)
_MESSAGES = msgspec.json.Decoder(list[msgspec.Raw])
ENDPOINT = "chat/completions"
"""The one whose conversations are changed; the others have forms of their own, and pass as they are."""


class Shrinks(Protocol):
    """Makes an image smaller."""

    async def shrink(self, data: bytes, max_edge: int, quality: int) -> bytes:
        """The image as a JPEG. Raises ApiError."""
        ...


class Fetches(Protocol):
    """Fetches an image by its address."""

    async def fetch(self, address: str, hosts: Collection[str] | None, most: int) -> bytes:
        """An image of at most `most` bytes from one of these hosts (None: any). Raises ApiError."""
        ...


@dataclass(frozen=True, slots=True)
class Switches:
    """What the environment says at start over every rule; None: what was compiled."""

    vision: bool | None = None
    reasoning: bool | None = None

    def apply(self, rules: History) -> History:
        """The rules in force."""
        vision = None if self.vision is False else rules.vision
        reasoning = None if self.reasoning is False else rules.reasoning
        if self.vision and vision is None:
            vision = History().vision
        return History(vision, _SWITCHED_ON if self.reasoning and reasoning is None else reasoning)


def switches(environ: Mapping[str, str]) -> Switches:
    """What the environment says. Raises ContractError for a value that is neither yes nor no."""
    return Switches(_switch(environ, VISION_VARIABLE), _switch(environ, REASONING_VARIABLE))


def _switch(environ: Mapping[str, str], name: str) -> bool | None:
    said = environ.get(name, "").strip().lower()
    if said in _ON or said in _OFF or not said:
        return said in _ON if said else None
    raise ContractError(f"{name}={environ[name]} is neither true nor false")


@dataclass(frozen=True, slots=True)
class Wish:
    """What one request asks to be left alone."""

    history: bool = True
    images: bool = True


def wish(header: str | None) -> Wish:
    """The request's own switches. Raises ApiError 400 for words that nobody knows."""
    found: dict[str, bool] = {}
    for part in (header or "").split(",") if header else ():
        name, _, value = part.strip().partition("=")
        if name not in ("history", "images") or value not in ("on", "off"):
            raise ApiError(
                400, "invalid_header", f"{HEADER}: `{part.strip()[:60]}` is not known", hint="history=off, images=off"
            )
        found[name] = value == "on"
    return Wish(**found)


def cut(request: Request, rules: History, room: Room, *, reasons: bool) -> tuple[Request, Cut | None]:
    """The request with as much of its conversation as the rules keep, and what went; None where no rule applies."""
    rule = rules.vision if request.images else rules.reasoning if reasons else None
    if rule is None or "messages" not in request.fields or request.endpoint != ENDPOINT:
        return request, None
    messages = _MESSAGES.decode(request.fields["messages"])
    hidden = request.elided
    found = (
        history.vision(messages, rule, room, lambda raw: _hidden(raw, hidden))
        if request.images
        else history.reasoning(messages, rule)
    )
    if not found.dropped:
        return request, found
    kept = msgspec.Raw(b"[" + b",".join(bytes(message) for message in found.messages) + b"]")
    images = request.images - found.dropped_images
    return msgspec.structs.replace(request, fields={**request.fields, "messages": kept}, images=images), found


def _hidden(raw: msgspec.Raw, elided: Elided | None) -> int:
    """Bytes that stand for the tokens of `raw`."""
    if elided is None:
        return 0
    return sum(
        len(elided.parts[int(number)]) for number in re.findall(re.escape(elided.token) + rb"([0-9]{4})", bytes(raw))
    )


@dataclass(slots=True)
class _Link:
    """An image part of a decoded message: its URL, as far as it stands there, and the rest of it."""

    part: dict[str, Any]
    head: bytes
    rest: memoryview

    def set(self, url: str) -> None:
        """Put another image in its place."""
        old = self.part["image_url"]
        self.part["image_url"] = {**old, "url": url} if isinstance(old, dict) else url


def _links(messages: Any, elided: Elided | None) -> Iterator[_Link]:
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            link = part.get("image_url") if isinstance(part, dict) else None
            url = link.get("url") if isinstance(link, dict) else link
            if isinstance(url, str):
                yield _link(part, url, elided)


def _link(part: dict[str, Any], url: str, elided: Elided | None) -> _Link:
    text = url.encode()
    at = text.find(elided.token) if elided is not None and not is_remote(url) else -1
    if elided is None or at < 0:
        return _Link(part, text, memoryview(b""))
    number = int(text[at + len(elided.token) :][:4])
    return _Link(part, text[:at], elided.parts[number])


def has_large_images(request: Request, rule: ImageRule) -> bool:
    """Judge every image of the request: does one have to be made smaller? Raises ApiError for what is not taken."""
    if not request.images or request.endpoint != ENDPOINT:
        return False
    messages = msgspec.json.decode(request.fields["messages"])
    seen = [look(link.head, rule, link.rest) for link in _links(messages, request.elided)]
    return any(image.needs_shrinking(rule) for image in seen)


async def fetched(
    request: Request, rule: ImageRule, hosts: Collection[str] | None, fetcher: Fetches
) -> tuple[Request, int]:
    """The request with the bytes of its images in the place of their addresses, and how many were fetched. Raises ApiError."""
    messages = msgspec.json.decode(request.fields["messages"])
    count = 0
    for link in _links(messages, request.elided):
        address = link.head.decode()
        if is_remote(address):
            data = await fetcher.fetch(address, hosts, rule.max_bytes)
            picture = sniff(data)
            kind = picture.format if picture else "unknown"
            link.set(f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii"))
            count += 1
    return _with_messages(request, messages), count


async def shrunk(request: Request, rule: ImageRule, shrinker: Shrinks) -> tuple[Request, int]:
    """The request with its large images made smaller, and how many they were. Raises ApiError."""
    messages = msgspec.json.decode(request.fields["messages"])
    count = 0
    for link in _links(messages, request.elided):
        if look(link.head, rule, link.rest).needs_shrinking(rule):
            data = _decoded(link.head[link.head.index(b",") + 1 :] + bytes(link.rest))
            small = await shrinker.shrink(data, rule.max_edge_px or 0, rule.jpeg_quality)
            link.set("data:image/jpeg;base64," + base64.b64encode(small).decode("ascii"))
            count += 1
    return _with_messages(request, messages), count


def _decoded(text: bytes) -> bytes:
    """Base64 with or without its padding, which some clients leave away."""
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4))
    except ValueError as error:
        raise ApiError(400, "invalid_image", f"an image is no base64: {error}", param="messages") from None


def _with_messages(request: Request, messages: Any) -> Request:
    fields = {**request.fields, "messages": msgspec.Raw(msgspec.json.encode(messages))}
    return msgspec.structs.replace(request, fields=fields)
