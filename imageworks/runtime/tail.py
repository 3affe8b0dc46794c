"""The end of an answer, read without touching its bytes: usage, finish reason, and whether it is complete.

Owns `Tail`, which keeps the last bytes of a stream (or a whole short answer) and reads facts from them when it
is over. What the engine does not say is None, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

KEEP = 32 << 10


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Timings(msgspec.Struct):
    """llama.cpp's own figures, present in the last chunk also where the client asked for no usage."""

    prompt_n: int | None = None
    cache_n: int | None = None
    predicted_n: int | None = None


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    usage: _Usage | None = None
    timings: _Timings | None = None
    choices: list[_Choice] = []


@dataclass(slots=True)
class Facts:
    """What an answer says about itself."""

    tokens_in: int | None = None
    tokens_cached: int | None = None
    tokens_out: int | None = None
    tokens_reasoning: int | None = None
    finish_reason: str | None = None


class Tail:
    """The last KEEP bytes of a stream."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Remember the end of what passes by."""
        self._bytes += chunk
        if len(self._bytes) > 2 * KEEP:
            del self._bytes[:-KEEP]

    def ended(self) -> bool:
        """Has the stream said that nothing follows?"""
        return self._bytes.rstrip().endswith(b"data: [DONE]")

    def facts(self) -> Facts:
        """Read the events that are kept, oldest first; later ones win."""
        facts = Facts()
        for line in bytes(self._bytes).split(b"\n"):
            if line.startswith(b"data:"):
                _note(facts, line[5:].strip())
        return facts


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
    facts.tokens_in, facts.tokens_out = usage.prompt_tokens, usage.completion_tokens
    if usage.prompt_tokens_details is not None:
        facts.tokens_cached = usage.prompt_tokens_details.cached_tokens
    if usage.completion_tokens_details is not None:
        facts.tokens_reasoning = usage.completion_tokens_details.reasoning_tokens
