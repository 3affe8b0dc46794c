"""The end of an answer, read without touching its bytes: usage, finish reason, and whether it is complete.

Owns `Tail`, which keeps the last bytes of a stream (or a whole short answer) and reads facts from them when it
is over. What the engine does not say is None, never 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

KEEP = 32 << 10


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    """OpenAI's chat names its counts prompt and completion; its Responses, and Anthropic's Messages, input and output."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    input_tokens_details: _PromptDetails | None = None
    output_tokens_details: _CompletionDetails | None = None


class _Timings(msgspec.Struct):
    """llama.cpp's own figures, present in the last chunk also where the client asked for no usage."""

    prompt_n: int | None = None
    cache_n: int | None = None
    predicted_n: int | None = None


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Delta(msgspec.Struct):
    stop_reason: str | None = None


class _Answer(msgspec.Struct):
    """A whole answer or an event of a stream, in any dialect; some events wrap the answer as it is so far."""

    usage: _Usage | None = None
    timings: _Timings | None = None
    choices: list[_Choice] = []
    status: str | int | None = None
    stop_reason: str | None = None
    delta: _Delta | str | None = None
    message: _Answer | str | None = None
    response: _Answer | str | None = None


_REASONS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
"""Anthropic's stop reasons in OpenAI's words."""
_LAST = re.compile(rb"event: ?(?:message_stop|response\.(?:completed|incomplete|failed))\n[^\n]*")
"""What ends a stream in the other dialects."""
_NOTHING = ((b'"finish_reason":null', b'"finish_-eason":null'), (b'"usage":null', b'"-sage":null'))
"""What most events say: nothing. It is made a name that nobody reads, so that such an event is not decoded."""
_NAMES = (b'_reason"', b'usage"', b'"timings"', b'"status"')
"""How the names end or begin under which an answer speaks of itself."""


@dataclass(slots=True)
class Facts:
    """What an answer says about itself."""

    tokens_in: int | None = None
    tokens_cached: int | None = None
    tokens_out: int | None = None
    tokens_reasoning: int | None = None
    finish_reason: str | None = None

    def total(self) -> int:
        """Tokens of prompt and answer, as far as they are known."""
        return (self.tokens_in or 0) + (self.tokens_out or 0)


class Tail:
    """The last KEEP bytes of a stream."""

    def __init__(self) -> None:
        self._bytes, self._counts = bytearray(), b""

    def feed(self, chunk: bytes) -> None:
        """Remember the end of what passes by."""
        self._bytes += chunk
        if len(self._bytes) > 2 * KEEP:
            del self._bytes[:-KEEP]

    def count(self, usage: bytes) -> None:
        """Counts that the engine told and the client did not ask for, as the JSON of an answer's `usage`."""
        self._counts = usage

    def ended(self) -> bool:
        """Has the stream said that nothing follows?"""
        end = self._bytes.rstrip()
        lines = end[max(0, end.rfind(b"\n\n")) :].strip()
        return end.endswith(b"data: [DONE]") or _LAST.fullmatch(lines) is not None

    def facts(self) -> Facts:
        """Read the events that are kept, oldest first; later ones win. Only lines that name a fact are decoded."""
        facts, text = Facts(), bytes(self._bytes)
        for said, unsaid in _NOTHING:
            text = text.replace(said, unsaid)
        for begin in sorted(set(_lines_with(text))):
            line = text[begin : _end_of_line(text, begin)]
            if line.startswith(b"data:"):
                _note(facts, line[5:].strip())
        _note(facts, self._counts)
        return facts


def _lines_with(text: bytes) -> Iterator[int]:
    """Where lines begin that have one of `_NAMES`."""
    for name in _NAMES:
        at = text.find(name)
        while at >= 0:
            yield text.rfind(b"\n", 0, at) + 1
            at = text.find(name, _end_of_line(text, at))


def _end_of_line(text: bytes, at: int) -> int:
    end = text.find(b"\n", at)
    return len(text) if end < 0 else end


def facts_of(body: bytes) -> Facts:
    """Facts of a whole JSON answer."""
    facts = Facts()
    _note(facts, body)
    return facts


def _note(facts: Facts, text: bytes) -> None:
    try:
        answer = msgspec.json.decode(text, type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return  # [DONE], a torn line, or an answer of another shape
    for inner in (answer.message, answer.response):
        if isinstance(inner, _Answer):
            _note_answer(facts, inner)
    _note_answer(facts, answer)


def _note_answer(facts: Facts, answer: _Answer) -> None:
    stopped = answer.stop_reason or (answer.delta.stop_reason if isinstance(answer.delta, _Delta) else None)
    if stopped is not None:
        facts.finish_reason = _REASONS.get(stopped, stopped)
    elif answer.status in ("completed", "incomplete"):
        facts.finish_reason = "stop" if answer.status == "completed" else "length"
    for choice in answer.choices:
        facts.finish_reason = choice.finish_reason or facts.finish_reason
    if answer.timings is not None and facts.tokens_out is None:
        _note_timings(facts, answer.timings)
    if answer.usage is not None:
        _note_usage(facts, answer.usage)


def _note_timings(facts: Facts, timings: _Timings) -> None:
    facts.tokens_out, facts.tokens_cached = timings.predicted_n, timings.cache_n
    if timings.prompt_n is not None and timings.cache_n is not None:
        facts.tokens_in = timings.prompt_n + timings.cache_n


def _note_usage(facts: Facts, usage: _Usage) -> None:
    if usage.input_tokens is not None or usage.output_tokens is not None:
        _note_input_and_output(facts, usage)
        return
    facts.tokens_in, facts.tokens_out = usage.prompt_tokens, usage.completion_tokens
    if usage.prompt_tokens_details is not None:
        facts.tokens_cached = usage.prompt_tokens_details.cached_tokens
    if usage.completion_tokens_details is not None:
        facts.tokens_reasoning = usage.completion_tokens_details.reasoning_tokens


def _note_input_and_output(facts: Facts, usage: _Usage) -> None:
    """Anthropic tells the input at a stream's begin and the output at its end."""
    cached = usage.cache_read_input_tokens
    if usage.input_tokens_details is not None:
        cached = usage.input_tokens_details.cached_tokens
    facts.tokens_in = usage.input_tokens if usage.input_tokens is not None else facts.tokens_in
    facts.tokens_out = usage.output_tokens if usage.output_tokens is not None else facts.tokens_out
    facts.tokens_cached = cached if cached is not None else facts.tokens_cached
    if usage.output_tokens_details is not None:
        facts.tokens_reasoning = usage.output_tokens_details.reasoning_tokens
