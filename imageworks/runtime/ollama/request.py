"""A chat request in the words of Ollama's own API.

Owns the translation of OpenAI's chat request to Ollama's /api/chat, and the list of what Ollama cannot be told. Its OpenAI
endpoint drops in silence what it does not know (`max_completion_tokens`, `top_k`, `tool_choice`, `n`) and cuts old messages
out of a conversation that is too long; here everything is told, or refused by name. After openai/openai.go and api/types.go
of Ollama (fb307609, August 2026). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from imageworks.runtime.errors import ApiError
from imageworks.runtime.ollama.fields import invalid, read
from imageworks.runtime.ollama.messages import Said, messages

PATH = "/api/chat"
OPTIONS: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repeat_penalty": "repeat_penalty",
    "repetition_penalty": "repeat_penalty",
    "repeat_last_n": "repeat_last_n",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "seed": "seed",
    "stop": "stop",
    "max_tokens": "num_predict",
    "max_completion_tokens": "num_predict",
}
"""A request's parameter, and its name among Ollama's `options`. What is not said is the model's own."""
FIELDS = ("messages", "stream", "tools", "response_format", "format", "reasoning_effort", "reasoning", "think", "logprobs", "top_logprobs")  # fmt: skip
"""What has a field of its own in /api/chat."""
IDLE = ("stream_options", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prediction")  # fmt: skip
"""What changes no answer: left out."""
COMPLETIONS = ("prompt", "suffix", "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "stop", "max_tokens", "logprobs", "stream")  # fmt: skip
"""What its OpenAI endpoint for texts looks at; the rest it drops in silence, so it is refused as well."""
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "tool_choice": ("auto", "none"),
    "parallel_tool_calls": (True,),
    "modalities": (["text"],),
    "logit_bias": ({},),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "include_reasoning": (True,),
    "skip_special_tokens": (True,),
    "add_special_tokens": (True,),
    "length_penalty": (1,),
    "stop_token_ids": ([],),
}
"""Values of what Ollama cannot be told that ask for what it does anyway; any other is refused. `none` takes the tools out."""
_TOLD: Mapping[str, frozenset[str]] = {
    "chat/completions": frozenset(("model", *OPTIONS, *FIELDS, *IDLE)),
    "completions": frozenset(("model", *COMPLETIONS, *IDLE)),
}
_EFFORTS: Mapping[str, str | bool] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "max": "max",
}


class _Schema(msgspec.Struct):
    schema: msgspec.Raw


class _Format(msgspec.Struct):
    type: str
    json_schema: _Schema | None = None


class _Reasoning(msgspec.Struct):
    effort: str | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


def translated(backend: str, endpoint: str) -> bool:
    """Do requests go through Ollama's own API?"""
    return backend == "ollama" and endpoint == "chat/completions"


def obstacle(endpoint: str, fields: Mapping[str, object]) -> ApiError | None:
    """Why Ollama cannot be told all that is asked: a 400 that names it; None where it can."""
    if endpoint == "completions":
        name = _untold(endpoint, fields)
        return None if name is None else _refused(name)
    if endpoint == "chat/completions":
        try:
            chat(msgspec.json.encode(fields))
        except ApiError as error:
            return error
    return None  # what the other endpoints look at is theirs to say


def wants_usage(fields: Mapping[str, object]) -> bool:
    """Does a stream end with the counts of tokens?"""
    options = read("stream_options", fields.get("stream_options"), _StreamOptions)
    return options is not None and bool(options.include_usage)


def chat(body: bytes) -> bytes:
    """The body for /api/chat; `body` is OpenAI's. Raises ApiError 400 that names what cannot be told.

    Schemas, tools and numbers stay the bytes that they were; what stands in for elided media is kept.
    """
    asked = {
        name: raw
        for name, raw in msgspec.json.decode(body, type=dict[str, msgspec.Raw]).items()
        if bytes(raw) != b"null"
    }
    if (name := _untold("chat/completions", asked)) is not None:
        raise _refused(name)
    said: Said = {name: asked[name] for name in ("model", "logprobs", "top_logprobs") if name in asked}
    said |= {
        "messages": messages(asked.get("messages")),
        "stream": bool(read("stream", asked.get("stream"), bool)),
        "truncate": False,
    }
    if "tools" in asked and _value(asked.get("tool_choice")) != "none":
        said["tools"] = asked["tools"]
    for field, value in (("options", _options(asked)), ("format", _format(asked)), ("think", _think(asked))):
        said |= {} if value is None else {field: value}
    return msgspec.json.encode(said)


def _untold(endpoint: str, fields: Mapping[str, object]) -> str | None:
    known = _TOLD[endpoint]
    return next((name for name, value in fields.items() if name not in known and not _neutral(name, value)), None)


def _refused(name: str) -> ApiError:
    message = f"`{name}` is not served by Ollama, which would answer as if it were not there"
    hint = "leave it out, or ask for a model of another backend"
    return ApiError(400, "parameter_refused", message, param=name, hint=hint)


def _neutral(name: str, value: object) -> bool:
    value = _value(value)
    return value is None or value in NEUTRAL.get(name, ())


def _value(value: object) -> object:
    return read("body", value, object) if isinstance(value, msgspec.Raw) else value


def _options(asked: Mapping[str, msgspec.Raw]) -> Said | None:
    said: Said = {option: asked[name] for name, option in OPTIONS.items() if name in asked}
    if (stop := _value(asked.get("stop"))) is not None:
        said["stop"] = [stop] if isinstance(stop, str) else stop
    limits = [
        limit
        for name, option in OPTIONS.items()
        if option == "num_predict" and (limit := read(name, asked.get(name), int)) is not None
    ]
    if limits:
        said["num_predict"] = min(limits)
    return said or None


def _format(asked: Mapping[str, msgspec.Raw]) -> object:
    form = read("response_format", asked.get("response_format"), _Format)
    if form is None:
        return asked.get("format")
    if form.type == "json_schema" and form.json_schema is not None:
        return form.json_schema.schema
    if form.type not in ("text", "json_object"):
        raise invalid("response_format", f"`response_format` is text, json_object or json_schema, not {form.type!r}")
    return "json" if form.type == "json_object" else None


def _think(asked: Mapping[str, msgspec.Raw]) -> object:
    if "think" in asked:
        return asked["think"]
    reasoning = read("reasoning", asked.get("reasoning"), _Reasoning)
    effort = (reasoning and reasoning.effort) or read("reasoning_effort", asked.get("reasoning_effort"), str)
    if effort is None:
        return None
    if effort not in _EFFORTS:
        raise invalid("reasoning_effort", f"`reasoning_effort` is one of {', '.join(_EFFORTS)}, not {effort!r}")
    return _EFFORTS[effort]
