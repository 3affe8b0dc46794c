"""Media in a request: how many images there are, and that no engine is given an address.

Owns the walk over the conversations of all dialects (OpenAI's chat and responses, Anthropic's messages, documents to
rank). An engine fetches every address that it is given, also on this machine (vLLM CVE-2025-6242, CVE-2026-24779), so an
address is refused here (images of a chat may be fetched before: see `remote`), and so is a tool that lives at one. Only what the dialects read as media is looked at: an address
in a text, or in a tool's arguments, is nobody's business. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from imageworks.runtime.errors import ApiError

SHOWN = 60
_LINKS = ("image_url", "video_url", "audio_url", "file_url", "server_url")
_VIDEOS = frozenset(("video", "input_video", "video_url"))
_IMAGES = frozenset(("image", "input_image", "image_url"))
_INSIDE = ("content", "output", "source")


class Found(NamedTuple):
    """How many images there are, whether there is a video, and whether an image is given by address."""

    images: int
    video: bool
    remote: bool = False


def find(fields: Mapping[str, msgspec.Raw], names: Sequence[str]) -> Found:
    """Media in the fields of these names. Raises ApiError 400 for media by address."""
    images, video = 0, False
    for name in names:
        if name in fields:
            for part in _parts(_decoded(name, fields[name])):
                _check(name, part)
                images += part.get("type") in _IMAGES
                video = video or part.get("type") in _VIDEOS or "video_url" in part
    return Found(images, video)


def is_remote(url: str) -> bool:
    """Is it anything but the bytes themselves?"""
    return url[:5].lower() != "data:"


def refuse_remote(url: str | None, field: str = "messages") -> None:
    """Raise ApiError 400 unless it is the bytes themselves."""
    if url is not None and is_remote(url):
        shown = url if len(url) <= SHOWN else url[: SHOWN - 1] + "…"
        hint = "send the bytes: data:image/jpeg;base64,…"
        message = f"media must be sent inline, not by address: {shown}"
        raise ApiError(400, "remote_media_refused", message, param=field, hint=hint)


def _decoded(name: str, raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, "invalid_field", f"`{name}` cannot be read: {error}", param=name) from None


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every object that may be a part of a conversation, outermost first."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, list):
            waiting += found
        elif isinstance(found, dict):
            yield found
            waiting += [found[name] for name in _INSIDE if name in found]


def _check(field: str, part: dict[str, Any]) -> None:
    for name in _LINKS:
        link = part.get(name)
        url = link.get("url") if isinstance(link, dict) else link
        if isinstance(url, str):
            refuse_remote(url, field)
    if part.get("type") == "url" and isinstance(part.get("url"), str):
        refuse_remote(part["url"], field)
