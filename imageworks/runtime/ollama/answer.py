"""Ollama's answer to a chat in OpenAI's words.

Owns `Translation`: lines of JSON become server-sent events, each at once, or one object becomes one object. The forms are
those of Ollama's own OpenAI endpoint (openai/openai.go, middleware/openai.go), with three differences: tool calls are
numbered through the stream, they have an id where Ollama gave none, and an error in mid-stream is an error: the endpoint
makes an empty message of it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

EVENTS, JSON = "text/event-stream", "application/json"
LINE_BYTES = 16 << 20
"""A line holds a token, or one tool call."""
DONE = b"data: [DONE]\n\n"
_KINDS = {400: "invalid_request_error", 404: "not_found_error"}


class BrokenError(Exception):
    """The answer is not whole: what Ollama says of it, or what is wrong with it."""


class _Function(msgspec.Struct):
    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class _Call(msgspec.Struct):
    function: _Function
    id: str | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Token(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class _Logprob(_Token):
    top_logprobs: list[_Token] = []


class _Line(msgspec.Struct):
    """api.ChatResponse: a piece of an answer, or a whole one."""

    message: _Message = msgspec.field(default_factory=_Message)
    done: bool = False
    done_reason: str = ""
    prompt_eval_count: int = 0
    eval_count: int = 0
    logprobs: list[_Logprob] | None = None
    error: str | None = None

    def empty(self) -> bool:
        """Does it say nothing but counts?"""
        message = self.message
        return not (message.content or message.thinking or message.tool_calls or self.logprobs)


class _Told(msgspec.Struct):
    message: str


class _Wrapped(msgspec.Struct):
    """llama-server's error."""

    error: _Told


class Translation:
    """One answer. `stamp` is its id, `created` seconds since 1970, `usage`: the client wants counts at a stream's end.

    `model` is its name in the stack, as other engines serve it: Ollama's own is a tag of ours with a context in it.
    """

    def __init__(self, stamp: str, created: int, model: str, *, stream: bool, usage: bool) -> None:
        self._stamp, self._created, self._model, self._stream, self._usage = stamp, created, model, stream, usage
        self._held = bytearray()
        self._begun = self._done = False
        self._calls = 0
        self.counts = b""
        """What a stream cost, `{"usage": …}`, once it is done: Ollama always says it."""

    @property
    def content_type(self) -> str:
        """Of a success."""
        return EVENTS if self._stream else JSON

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take a piece, give the events of every line that it ends. Raises BrokenError after the last whole one."""
        searched = len(self._held)
        self._held += data
        if not self._stream:
            return
        while (cut := self._held.find(b"\n", searched)) >= 0:
            line, searched = bytes(self._held[:cut]), 0
            del self._held[: cut + 1]
            yield from self._line(line)
        if len(self._held) > LINE_BYTES:
            raise BrokenError(f"a line of more than {LINE_BYTES >> 20} MiB")

    def end(self) -> Iterator[bytes]:
        """Nothing follows: give what is left. Raises BrokenError where the answer never said that it is done."""
        rest, self._held = bytes(self._held), bytearray()
        if self._stream:
            yield from self._line(rest)
        else:
            yield self._whole(_read(rest))
        if not self._done:
            raise BrokenError("it ended before it was done")

    def _line(self, text: bytes) -> Iterator[bytes]:
        if self._done or not text.strip():
            return
        line = _read(text)
        if not (line.done and self._begun and line.empty()):
            yield b"".join(map(_event, self._chunks(line)))
        if line.done:
            self._done, self.counts = True, msgspec.json.encode({"usage": _counts(line)})
            yield b"".join((*map(_event, self._ending(line)), DONE))

    def _chunks(self, line: _Line) -> Iterator[Mapping[str, object]]:
        """One, or two where it thinks and speaks at once: clients read a delta as either."""
        said, message = line.message, {"role": "assistant"} if not self._begun else {}
        self._begun = True
        spoken: dict[str, object] = {"content": said.content or ""}
        if said.tool_calls:
            spoken["tool_calls"] = self._tool_calls(said.tool_calls)
        logprobs = _logprobs(line)
        if not said.thinking:
            yield self._chunk({"delta": {**message, **spoken}, "finish_reason": None, **logprobs})
            return
        alone = not (said.content or said.tool_calls)
        first = {**message, **(spoken if alone else {}), "reasoning": said.thinking}
        yield self._chunk({"delta": first, "finish_reason": None, **logprobs})
        if not alone:
            yield self._chunk({"delta": spoken, "finish_reason": None})

    def _ending(self, line: _Line) -> Iterator[Mapping[str, object]]:
        yield self._chunk({"delta": {}, "finish_reason": self._reason(line)})
        if self._usage:
            yield {**self._head("chat.completion.chunk"), "choices": [], "usage": _counts(line)}

    def _whole(self, line: _Line) -> bytes:
        self._done = line.done
        said = line.message
        message: dict[str, object] = {"role": "assistant", "content": said.content or ""}
        if said.thinking:
            message["reasoning"] = said.thinking
        if said.tool_calls:
            message["tool_calls"] = self._tool_calls(said.tool_calls)
        choice = {"index": 0, "message": message, "finish_reason": self._reason(line), **_logprobs(line)}
        return msgspec.json.encode({**self._head("chat.completion"), "choices": [choice], "usage": _counts(line)})

    def _head(self, kind: str) -> dict[str, object]:
        return {
            "id": self._stamp,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": "fp_ollama",
        }

    def _chunk(self, choice: Mapping[str, object]) -> dict[str, object]:
        return {**self._head("chat.completion.chunk"), "choices": [{"index": 0, **choice}]}

    def _tool_calls(self, calls: list[_Call]) -> list[dict[str, object]]:
        begin, self._calls = self._calls, self._calls + len(calls)
        return [
            {
                "id": call.id or f"call_{self._stamp}_{index}",
                "index": index,
                "type": "function",
                "function": {"name": call.function.name, "arguments": bytes(call.function.arguments).decode()},
            }
            for index, call in enumerate(calls, begin)
        ]

    def _reason(self, line: _Line) -> str:
        """Older versions give none. A turn that called tools and came to its end waits for them."""
        reason = line.done_reason or "stop"
        return "tool_calls" if reason == "stop" and self._calls else reason


def error(status: int, body: bytes) -> bytes:
    """An error of Ollama's, which is `{"error": text}`, in OpenAI's form."""
    try:
        message = msgspec.json.decode(body, type=_Line).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        message = None
    told = body.decode(errors="replace") if message is None else _innermost(message)
    kind = _KINDS.get(status, "api_error")
    return msgspec.json.encode({"error": {"message": told, "type": kind, "param": None, "code": None}})


def _innermost(message: str) -> str:
    """What llama-server says, which Ollama passes on as JSON in its own error's text."""
    try:
        return msgspec.json.decode(message, type=_Wrapped).error.message
    except (msgspec.MsgspecError, RecursionError):
        return message


def _read(text: bytes) -> _Line:
    try:
        line = msgspec.json.decode(text, type=_Line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise BrokenError(f"this is not Ollama's: {problem}") from None
    if line.error is not None:
        raise BrokenError(_innermost(line.error))
    return line


def _event(chunk: Mapping[str, object]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def _logprobs(line: _Line) -> dict[str, object]:
    return {"logprobs": {"content": line.logprobs}} if line.logprobs else {}


def _counts(line: _Line) -> dict[str, int]:
    return {
        "prompt_tokens": line.prompt_eval_count,
        "completion_tokens": line.eval_count,
        "total_tokens": line.prompt_eval_count + line.eval_count,
    }
