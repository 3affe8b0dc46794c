"""Tool calls that a model wrote as text, made the calls that the API has a form for; only where a stack asks for it.

Owns what counts as a call: an answer whose whole text is calls of tools that the request declared, as Hermes
(`<tool_call>{…}</tool_call>`), Mistral (`[TOOL_CALLS][{…}]`) or bare JSON (`{"name": …, "arguments": {…}}`; Llama says
`parameters`) write them. Everything else passes byte for byte. An answer without end of its own (`length`) is no call. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

HEADER = "x-imageworks-tool-calls"
HELD_BYTES = 256 << 10
"""More of a stream is not held back: no call is that long."""
_HERMES, _HERMES_END, _MISTRAL = "<tool_call>", "</tool_call>", "[TOOL_CALLS]"
_BLANK = " \t\r\n"
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|["{}\[\]]', re.DOTALL)
_EVENT_END = re.compile(rb"\r?\n\r?\n")
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_FIRST_BYTES = 512

Fields = dict[str, msgspec.Raw]


class _Function(msgspec.Struct):
    name: str = ""


class _Tool(msgspec.Struct):
    type: str = ""
    function: _Function = msgspec.field(default_factory=_Function)


class _Choice(msgspec.Struct):
    type: str = ""
    function: _Function = msgspec.field(default_factory=_Function)


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call as a model writes it."""

    name: str
    arguments: msgspec.Raw = msgspec.Raw()
    parameters: msgspec.Raw = msgspec.Raw()

    @property
    def given(self) -> bytes:
        """The JSON of its arguments; empty where it says none, or says them twice."""
        said = bytes(self.arguments), bytes(self.parameters)
        return b"" if all(said) else b"".join(said)


@dataclass(frozen=True, slots=True)
class Tools:
    """What a request lets the model call: the names of functions, and whether several at once."""

    names: frozenset[str]
    parallel: bool = True


Read = tuple[Call, ...] | Literal["open"] | None
"""The calls that a text is; `open`: it is none yet, and may become some; None: it is text."""


def declared(fields: Mapping[str, msgspec.Raw]) -> Tools | None:
    """The tools of a request; None where it has none, or wants none called."""
    if "tools" not in fields:
        return None
    try:
        tools = msgspec.json.decode(fields["tools"], type=list[_Tool] | None) or ()
        choice = msgspec.json.decode(fields.get("tool_choice", b"null"), type=_Choice | str | None)
        parallel = msgspec.json.decode(fields.get("parallel_tool_calls", b"null"), type=bool | None)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # the engine says what is wrong with them
    names = frozenset(tool.function.name for tool in tools if _NAME.fullmatch(tool.function.name))
    if isinstance(choice, _Choice):
        names &= {choice.function.name}
    return Tools(names, parallel is not False) if names and choice != "none" else None


def read(text: str, tools: Tools) -> Read:
    """What a text is, as far as it goes."""
    rest = text.strip(_BLANK)
    found = (
        _hermes(rest, tools) if rest[:1] == "<" else _mistral(rest, tools) if rest[:1] == "[" else _bare(rest, tools)
    )
    return None if isinstance(found, tuple) and len(found) > 1 and not tools.parallel else found


def _hermes(text: str, tools: Tools) -> Read:
    calls: list[Call] = []
    while text:
        if not text.startswith(_HERMES):
            return "open" if _HERMES.startswith(text) else None
        text = text[len(_HERMES) :].lstrip(_BLANK)
        if (end := _end(text)) is None:
            return "open" if _may_open(text, tools) else None
        if (call := _call(text[:end], tools)) is None:
            return None
        calls.append(call)
        text = text[end:].lstrip(_BLANK)
        if not text.startswith(_HERMES_END):
            return "open" if _HERMES_END.startswith(text) else None
        text = text[len(_HERMES_END) :].lstrip(_BLANK)
    return tuple(calls)


def _mistral(text: str, tools: Tools) -> Read:
    if not text.startswith(_MISTRAL):
        return "open" if _MISTRAL.startswith(text) else None
    text = text[len(_MISTRAL) :].lstrip(_BLANK)
    if text[:1] not in ("[", ""):
        return None
    if _end(text) is None:
        return "open" if _may_open(text[1:].lstrip(_BLANK), tools) else None
    try:
        each = msgspec.json.decode(text, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError):
        return None
    calls = [call for one in each if (call := _call(bytes(one), tools)) is not None]
    return tuple(calls) if calls and len(calls) == len(each) else None


def _bare(text: str, tools: Tools) -> Read:
    if (end := _end(text)) is None:
        return "open" if _may_open(text, tools) else None
    call = None if text[end:] else _call(text, tools)
    return None if call is None else (call,)


def _call(text: str | bytes, tools: Tools) -> Call | None:
    try:
        call = msgspec.json.decode(text, type=Call)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return call if call.name in tools.names and call.given[:1] == b"{" else None


def _end(text: str) -> int | None:
    """Where the brackets that a text begins with are closed; None: nowhere yet, or it begins with none."""
    depth = 0
    if text[:1] not in ("{", "["):
        return None
    for token in _TOKEN.finditer(text):
        word = token[0]
        depth += (word in ("{", "[")) - (word in ("}", "]"))
        if not depth:
            return token.end()
    return None


def _may_open(text: str, tools: Tools) -> bool:
    """May this be how an object of a call begins? Judged by its first words, whatever blanks stand between them."""
    begin = "".join(text[:_FIRST_BYTES].split())
    openings = ['{"arguments":{', '{"parameters":{', *(f'{{"name":"{name}"' for name in tools.names)]
    return any(begin.startswith(opening) or opening.startswith(begin) for opening in openings)


def _form(calls: Sequence[Call], stamp: str, *, numbered: bool) -> list[dict[str, object]]:
    """Calls as the API has them; those of a stream are `numbered`."""
    return [
        {
            **({"index": index} if numbered else {}),
            "id": f"call_{stamp}_{index}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.given.decode()},
        }
        for index, call in enumerate(calls)
    ]


class _Said(msgspec.Struct):
    """What counts of a message, or of a delta."""

    content: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Part(msgspec.Struct):
    """What counts of a choice."""

    index: int = 0
    finish_reason: str | None = None
    delta: _Said = msgspec.field(default_factory=_Said)
    message: _Said = msgspec.field(default_factory=_Said)


class _Event(msgspec.Struct):
    choices: list[_Part] = []


_ENCODE = msgspec.json.Encoder().encode


def whole(body: bytes, tools: Tools, stamp: str) -> tuple[bytes, int]:
    """A whole answer with its text made calls, and how many they are; 0 and the same bytes where it is text."""
    try:
        parts = msgspec.json.decode(body, type=_Event).choices
        answer = msgspec.json.decode(body, type=Fields)
        choices = msgspec.json.decode(answer.get("choices", b"[]"), type=list[Fields])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body, 0
    count = 0
    for part, choice in zip(parts, choices, strict=True):
        said = part.message
        calls = None if said.tool_calls or part.finish_reason != "stop" else read(said.content or "", tools)
        if isinstance(calls, tuple) and calls:
            form = _form(calls, f"{stamp}_{part.index}", numbered=False)
            message = {**msgspec.json.decode(choice["message"], type=Fields), "content": None, "tool_calls": form}
            choice |= {"message": _raw(message), "finish_reason": _raw("tool_calls")}
            count += len(calls)
    return (_ENCODE({**answer, "choices": choices}), count) if count else (body, 0)


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_ENCODE(value))


class Normaliser:
    """A stream of server-sent events whose text is held back while it may be a call. `count`: calls that were made."""

    def __init__(self, tools: Tools, stamp: str) -> None:
        self._tools, self._stamp = tools, stamp
        self._torn = b""
        """An event that is not whole yet."""
        self._events: list[bytes] = []
        """Events that are held back, each with its end."""
        self._text, self._held, self._done = "", 0, False
        self.count = 0

    def feed(self, data: bytes) -> bytes:
        """Take a piece, give what may pass."""
        data, self._torn = self._torn + data, b""
        passed, begin = b"", 0
        while not self._done and (end := _EVENT_END.search(data, begin)):
            passed += self._event(data[begin : end.end()])
            begin = end.end()
        if not self._done and self._held + len(data) - begin <= HELD_BYTES:
            self._torn = data[begin:]
            return passed
        return passed + self.end() + data[begin:]

    def end(self) -> bytes:
        """Nothing follows, or nothing is to be held back any more: what is left."""
        left = b"".join(self._events) + self._torn
        self._events, self._torn, self._done = [], b"", True
        return left

    def _event(self, event: bytes) -> bytes:
        part = _part(event)
        if part is not None and not part.delta.tool_calls:
            self._text += part.delta.content or ""
            if not self._text and not part.finish_reason:
                return event  # a role, a thought, a comment: they come before the text, and stay there
            found = read(self._text, self._tools)
            if found is not None and part.finish_reason is None:
                self._events.append(event)
                self._held += len(event)
                return b""
            if isinstance(found, tuple) and part.finish_reason == "stop":
                self._events, event = self._made(found, [*self._events, event]), b""
        return self.end() + event

    def _made(self, calls: tuple[Call, ...], events: Sequence[bytes]) -> list[bytes]:
        """The events with the calls where the text began."""
        made: list[bytes] = []
        delta = {"tool_calls": _raw(_form(calls, f"{self._stamp}_0", numbered=True))}
        self.count = len(calls)
        for event in events:
            part = _part(event) or _Part()
            if part.delta.content:
                made.append(_changed(event, delta))
                delta = {}
            else:
                made.append(_changed(event, {}) if part.finish_reason else event)
        return made


def _part(event: bytes) -> _Part | None:
    """The only choice of an event; an empty one for a comment or a chunk without choices; None: do not touch this stream."""
    if event.startswith(b":"):
        return _Part()
    try:
        choices = msgspec.json.decode(event.removeprefix(b"data:"), type=_Event).choices
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    part = choices[0] if choices else _Part()
    return part if len(choices) <= 1 and part.index == 0 else None


def _changed(event: bytes, delta: Fields) -> bytes:
    """An event with a text's calls instead of the text; empty where nothing is left of it."""
    chunk = msgspec.json.decode(event.removeprefix(b"data:"), type=Fields)
    choice = msgspec.json.decode(chunk["choices"], type=list[Fields])[0]
    said = msgspec.json.decode(choice.get("delta", b"{}"), type=Fields)
    said = {name: value for name, value in said.items() if name != "content"} | delta
    over = bytes(choice.get("finish_reason", b"null")) != b"null"
    if not said and not over:
        return b""
    choice |= {"delta": _raw(said), **({"finish_reason": _raw("tool_calls")} if over else {})}
    return b"data: " + _ENCODE({**chunk, "choices": [choice]}) + b"\n\n"
