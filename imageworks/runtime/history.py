"""How much of a conversation is sent again: pure functions from messages to messages.

Owns the two policies. Images cost thousands of tokens each, so a vision conversation keeps its system messages, the
current turn, and few turns before; a question about an image of an earlier turn keeps the last turn that has one, so
that no image is lost in silence. Reasoning models may keep few turns too (opt-in). A turn begins at a user's message
that answers no open tool call, and is kept or dropped whole: a tool's result never loses its call. Messages that stay
are the client's own bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from imageworks.contract import HistoryRule

BYTES_PER_TOKEN = 3
"""Text is counted as one token for so many bytes: more than tokenizers of these models make of ordinary text."""
_NULL = msgspec.Raw(b"null")
_SYSTEM = frozenset({"system", "developer"})


Hidden = Callable[[msgspec.Raw], int]
"""Bytes of a message that do not stand in it (see `elide`)."""


def _nothing(_raw: msgspec.Raw) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Room:
    """What a model takes in one request. `tokens` is its context less the longest answer; None: not bounded."""

    tokens: int | None = None
    images: int | None = None
    image_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Cut:
    """What is sent, and how much is not. `tokens` is the estimate of what is sent."""

    messages: tuple[msgspec.Raw, ...]
    dropped: int = 0
    dropped_images: int = 0
    tokens: int = 0

    @property
    def told(self) -> str | None:
        """For the response header; None when all is sent."""
        return f"messages={self.dropped}, images={self.dropped_images}" if self.dropped else None


class _Call(msgspec.Struct):
    id: str | None = None


class _Part(msgspec.Struct):
    image_url: msgspec.Raw = _NULL


class _Head(msgspec.Struct):
    """A message; what is none decodes to an empty one, the engine says what is wrong with it."""

    role: str | None = None
    content: str | list[_Part | str] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Message:
    raw: msgspec.Raw
    system: bool
    images: int
    bytes: int
    text: int


@dataclass(slots=True)
class _Turn:
    """Messages that stand and fall together, by index."""

    indexes: list[int]
    images: int = 0
    bytes: int = 0
    text: int = 0


def vision(messages: Sequence[msgspec.Raw], rule: HistoryRule, room: Room, hidden: Hidden = _nothing) -> Cut:
    """The part of a conversation with images that fits `room`, newest first; one without images is left alone."""
    read, turns = _read(messages, hidden)
    if not any(message.images for message in read):
        return _everything(read, room)
    kept = turns[-(rule.keep_turns + 1) :]
    carried = None
    if not any(turn.images for turn in kept):
        carried = next((turn for turn in reversed(turns[: -len(kept)]) if turn.images), None)
    kept = [carried, *kept] if carried else kept
    system = [message for message in read if message.system and rule.keep_system]
    while len(kept) > 1 and _too_much(kept, system, rule, room):
        # the turn that is only there for its image goes last
        kept.pop(1 if kept[0] is carried and len(kept) > 2 else 0)  # noqa: PLR2004 - carried, older, current
    return _cut(read, kept, rule, room)


def reasoning(messages: Sequence[msgspec.Raw], rule: HistoryRule) -> Cut:
    """The last turns of a conversation without images; one with images is left alone."""
    read, turns = _read(messages, _nothing)
    if any(message.images for message in read):
        return _everything(read, Room())
    return _cut(read, turns[-(rule.keep_turns + 1) :], rule, Room())


def _everything(read: Sequence[_Message], room: Room) -> Cut:
    return Cut(tuple(message.raw for message in read), tokens=sum(_tokens(item, room) for item in read))


def _cut(read: Sequence[_Message], kept: Sequence[_Turn], rule: HistoryRule, room: Room) -> Cut:
    wanted = {index for turn in kept for index in turn.indexes}
    wanted |= {index for index, message in enumerate(read) if message.system and rule.keep_system}
    gone = [message for index, message in enumerate(read) if index not in wanted]
    stays = [message for index, message in enumerate(read) if index in wanted]
    return Cut(
        tuple(message.raw for message in stays),
        len(gone),
        sum(message.images for message in gone),
        sum(_tokens(message, room) for message in stays),
    )


def _too_much(kept: Sequence[_Turn], system: Sequence[_Message], rule: HistoryRule, room: Room) -> bool:
    parts: list[_Turn | _Message] = [*kept, *system]
    images = sum(part.images for part in parts)
    tokens = sum(_tokens(part, room) for part in parts)
    size = sum(part.bytes for part in parts)
    return (
        (rule.max_bytes is not None and size > rule.max_bytes)
        or (room.images is not None and images > room.images)
        or (room.tokens is not None and tokens > room.tokens)
    )


def _tokens(part: _Turn | _Message, room: Room) -> int:
    return -(-part.text // BYTES_PER_TOKEN) + part.images * room.image_tokens


def _read(messages: Sequence[msgspec.Raw], hidden: Hidden) -> tuple[list[_Message], list[_Turn]]:
    read: list[_Message] = []
    turns: list[_Turn] = []
    open_calls: set[str] = set()
    for index, (raw, head) in enumerate(_heads(messages)):
        message = _weighed(raw, head, hidden)
        read.append(message)
        if message.system:
            continue
        if not turns or (head.role == "user" and not open_calls):
            turns.append(_Turn([]))
        turn = turns[-1]
        turn.indexes.append(index)
        turn.images, turn.bytes, turn.text = (
            turn.images + message.images,
            turn.bytes + message.bytes,
            turn.text + message.text,
        )
        open_calls |= {call.id for call in head.tool_calls or () if call.id}
        open_calls.discard(head.tool_call_id or "")
    return read, turns or [_Turn([])]


def _heads(messages: Sequence[msgspec.Raw]) -> Iterator[tuple[msgspec.Raw, _Head]]:
    for raw in messages:
        try:
            yield raw, msgspec.json.decode(raw, type=_Head)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            yield raw, _Head()


def _weighed(raw: msgspec.Raw, head: _Head, hidden: Hidden) -> _Message:
    parts = head.content if isinstance(head.content, list) else []
    links = [
        part.image_url for part in parts if isinstance(part, _Part) and bytes(memoryview(part.image_url)[:4]) != b"null"
    ]
    size = len(memoryview(raw))
    text = size - sum(len(memoryview(link)) for link in links)
    return _Message(raw, head.role in _SYSTEM, len(links), size + hidden(raw), text)
