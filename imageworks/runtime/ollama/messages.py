"""The messages of a chat in the words of Ollama's own API.

Owns parts (text, images, sound), tool calls and their answers, and thoughts. After openai/openai.go of Ollama. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import msgspec

from imageworks.runtime.ollama.fields import invalid, read

Said = dict[str, object]

_ROLES = {"developer": "system"}
"""Templates of open models do not know OpenAI's newer name."""


class _Function(msgspec.Struct):
    name: str = ""
    arguments: str | dict[str, Any] = ""


class _Call(msgspec.Struct):
    function: _Function
    id: str | None = None


class _Link(msgspec.Struct):
    url: str


class _Audio(msgspec.Struct):
    data: str


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    image_url: _Link | str | None = None
    input_audio: _Audio | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[_Call] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


def messages(raw: msgspec.Raw | None) -> list[Said]:
    """Ollama's messages of OpenAI's. Raises ApiError 400 for a part that it has no place for."""
    given = read("messages", raw, list[_Message])
    if not given:
        raise invalid("messages", "there are no messages")
    names = {call.id: call.function.name for message in given for call in message.tool_calls or () if call.id}
    return [said for message in given for said in _message(message, names)]


def _message(message: _Message, names: Mapping[str, str]) -> list[Said]:
    role = _ROLES.get(message.role, message.role)
    turns = _turns(message.content)
    said: list[Said] = [
        {"role": role, "content": text, **({"images": images} if images else {})} for text, images in turns
    ]
    if thinking := message.reasoning or message.reasoning_content:
        said[-1]["thinking"] = thinking
    if message.tool_calls:
        said[-1]["tool_calls"] = [_call(call) for call in message.tool_calls]
    if role == "tool":
        said[-1] |= _answered(message, names)
    return said


def _answered(message: _Message, names: Mapping[str, str]) -> Said:
    """Which call a tool's answer belongs to: templates want the tool's name, which OpenAI leaves to the id."""
    name = message.name or names.get(message.tool_call_id or "")
    said = {"tool_name": name, "tool_call_id": message.tool_call_id}
    return {field: value for field, value in said.items() if value}


def _call(call: _Call) -> Said:
    given = call.function.arguments
    try:
        arguments = msgspec.json.decode(given or "{}", type=dict[str, Any]) if isinstance(given, str) else given
    except (msgspec.MsgspecError, RecursionError):
        raise invalid("messages", f"the arguments of the call of {call.function.name!r} are no JSON object") from None
    return {**({"id": call.id} if call.id else {}), "function": {"name": call.function.name, "arguments": arguments}}


def _turns(content: str | list[_Part] | None) -> list[tuple[str, list[str]]]:
    """Texts and images of one message.

    Ollama shows the images of a message before its text: where images stand between texts, each part is a message of its
    own, as Ollama's OpenAI endpoint does it, so that their order is not lost.
    """
    if content is None or isinstance(content, str):
        return [(content or "", [])]
    parts = [_part(part) for part in content]
    runs = [media for media, _ in groupby(image is not None for _, image in parts)]
    if runs.count(True) > 1:
        return [(text or "", [image] if image is not None else []) for text, image in parts]
    texts = [text for text, _ in parts if text is not None]
    return [("\n".join(texts), [image for _, image in parts if image is not None])]


def _part(part: _Part) -> tuple[str | None, str | None]:
    """Its text, or its image or sound in base64."""
    if part.type == "text" and part.text is not None:
        return part.text, None
    if part.type == "image_url" and part.image_url is not None:
        return None, _base64(part.image_url.url if isinstance(part.image_url, _Link) else part.image_url)
    if part.type == "input_audio" and part.input_audio is not None:
        return None, part.input_audio.data
    raise invalid("messages", f"a part of type {part.type!r} is not served by Ollama")


def _base64(url: str) -> str:
    if url.lower().startswith(("http://", "https://")):
        return url  # judged before it is fetched, sent after; Ollama itself takes no address
    head, found, data = url.partition(";base64,")
    if not found or not head.startswith("data:"):
        raise invalid("messages", "an image is a data: URL in base64")
    return data
