"""Which parameters of a request may reach an engine, and within which bounds.

Owns the allow-list: what OpenAI's API names, and what engines add that only shapes an answer. Everything else is
refused with its name, never taken out in silence: engines have parameters that load code, fetch addresses, or end the
engine (the CVEs of vLLM, llama.cpp and Ollama that each line of DANGEROUS names). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import msgspec

from imageworks.runtime.errors import ApiError
from imageworks.runtime.schemas import check_pattern, check_schema
from imageworks.runtime.table import close_names

T = TypeVar("T")
Fields = Mapping[str, msgspec.Raw]

SCHEMA_BYTES = 64 << 10
"""A JSON schema, a list of tools: larger ones made engines compile for minutes."""
REGEX_BYTES = 2 << 10
STOPS, STOP_BYTES = 16, 512
LIST_ITEMS = 1024
MESSAGES = 4096
TOP_LOGPROBS = 20

_ASKED = frozenset(
    [
        "model",
        "messages",
        "prompt",
        "suffix",
        "echo",
        "input",
        "instructions",
        "encoding_format",
        "dimensions",
        "stream",
        "stream_options",
        "n",
        "best_of",
        "stop",
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "seed",
        "user",
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "functions",
        "function_call",
        "response_format",
        "text",
        "reasoning",
        "reasoning_effort",
        "verbosity",
        "modalities",
        "prediction",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "truncation",
        "include",
        "previous_response_id",
        "background",
        "query",
        "documents",
        "top_n",
        "system",
        "stop_sequences",
        "thinking",
        "voice",
        "speed",
        "language",
        "output_config",
        "context_management",
        "cache_control",
        "max_tool_calls",
        "prompt_cache_retention",
        "stream_format",
        "timestamp_granularities",
        "chunking_strategy",
        "return_documents",
    ]
)
"""What OpenAI's and Anthropic's APIs and the rerank endpoint name."""
_ENGINES = frozenset(
    [
        "top_k",
        "min_p",
        "typical_p",
        "repetition_penalty",
        "repeat_penalty",
        "repeat_last_n",
        "length_penalty",
        "min_tokens",
        "ignore_eos",
        "stop_token_ids",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "include_stop_str_in_output",
        "prompt_logprobs",
        "allowed_token_ids",
        "bad_words",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "structured_outputs",
        "include_reasoning",
        "return_token_ids",
        "return_tokens_as_token_ids",
        "add_special_tokens",
        "truncate_prompt_tokens",
        "think",
        "format",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
        "dynatemp_range",
        "dynatemp_exponent",
        "dry_multiplier",
        "dry_base",
        "dry_allowed_length",
        "xtc_probability",
        "xtc_threshold",
        "timings_per_token",
        "return_progress",
        "reasoning_format",
        "n_probs",
        "min_keep",
        "samplers",
        "truncation_side",
        "normalize",
        "raw_scores",
        "score",
        "max_tokens_per_doc",
    ]
)
"""What vLLM, llama.cpp and Ollama add that only shapes an answer."""
DANGEROUS: Mapping[str, str] = {
    "chat_template": "it is code that the engine runs (CVE-2025-61620)",
    "chat_template_kwargs": "it can stop the engine's loop (CVE-2025-62426); a variant of the model may set it",
    "documents_template": "it is code that the engine runs",
    "prompt_embeds": "the engine unpickles it (CVE-2025-62164)",
    "logits_processors": "it names code that the engine imports",
    "mm_processor_kwargs": "it reaches into the image decoder (CVE-2026-22778)",
    "media_io_kwargs": "it reaches into the image decoder (CVE-2026-22778)",
    "kv_transfer_params": "it moves memory between engines (CVE-2025-32444)",
    "vllm_xargs": "it reaches into the engine",
    "cache_salt": "it belongs to the server",
    "priority": "the proxy orders requests; see x-imageworks-urgency",
    "request_id": "the proxy names requests",
    "use_beam_search": "it multiplies the memory of a request (CVE-2026-34756)",
    "grammar": "engines crash on grammars (CVE-2025-48943); use response_format",
    "guided_grammar": "engines crash on grammars (CVE-2025-48943); use response_format",
    "guided_decoding_backend": "it belongs to the server",
    "n_discard": "a negative value writes outside memory (CVE-2026-21869)",
    "n_keep": "it belongs to the server",
    "id_slot": "it takes another client's slot",
    "slot_id": "it takes another client's slot",
    "lora": "it belongs to the server",
    "lora_adapter": "it belongs to the server",
    "keep_alive": "the scheduler decides what stays loaded",
    "options": "num_ctx and others reload the model; the stack sets them",
    "api_base": "a client never chooses where its request goes (CVE-2024-6587)",
    "base_url": "a client never chooses where its request goes (CVE-2024-6587)",
    "api_key": "keys go into the Authorization header",
}
"""Parameters that are refused by name, and why."""
VIDEO = "video_url"
"""Not a parameter but a kind of part; the stack allows it by that name."""
_KNOWN = _ASKED | _ENGINES
_SCHEMAS = ("tools", "functions", "response_format", "text", "guided_json", "structured_outputs", "format")
_LISTS = ("stop_token_ids", "allowed_token_ids", "bad_words", "samplers", "guided_choice")
_TEXTS: Any = str | list[str]
_TRUTH_OR_NUMBER: Any = bool | int
_NOT_NEGATIVE = (
    "top_logprobs",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "min_tokens",
    "n",
    "best_of",
)


def check(fields: Fields, allowed: Collection[str] = (), completions: int = 4) -> None:
    """Raise ApiError 400 for the first parameter that may not pass. `allowed` are further names of the stack."""
    if not _KNOWN.issuperset(fields):
        for name in fields:
            if name not in _KNOWN and name not in allowed:
                raise _refused(name)
    for name in fields:
        if name in _BOUNDS:
            _BOUNDS[name](name, fields[name])
    for name in ("n", "best_of"):
        if name in fields and (_read(name, fields[name], int) or 0) > completions:
            hint = "ask several times, or raise proxy.limits.completions_per_request"
            raise _invalid(name, f"`{name}` is at most {completions}", hint)


def check_video(allowed: Collection[str]) -> None:
    """Raise ApiError 400 unless the stack lets clients send video, whose decoders are the widest surface of an engine."""
    if VIDEO not in allowed:
        hint = f"send its frames as images; the stack may allow it: proxy.parameters.allow: [{VIDEO}]"
        raise _invalid("messages", "video may not be sent by a client (CVE-2026-22778)", hint, "parameter_refused")


def _refused(name: str) -> ApiError:
    shown = name if len(name) <= 60 else f"{name[:59]}…"  # noqa: PLR2004 - a line of a terminal
    if name in DANGEROUS:
        hint = "the stack may allow it: proxy.parameters.allow"
        return _invalid(name, f"`{shown}` may not be set by a client: {DANGEROUS[name]}", hint, "parameter_refused")
    near = close_names(name, _KNOWN)
    hint = near if near.startswith("did you") else "the stack may allow it: proxy.parameters.allow"
    return _invalid(shown, f"unknown parameter `{shown}`", hint, "unknown_parameter")


def _invalid(name: str, message: str, hint: str | None = None, code: str = "invalid_field") -> ApiError:
    return ApiError(400, code, message, param=name, hint=hint)


def _read(name: str, raw: msgspec.Raw, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(raw, type=kind | None)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _invalid(name, f"`{name}` cannot be read: {error}") from None


def _no_longer(size: int) -> Callable[[str, msgspec.Raw], None]:
    def bound(name: str, raw: msgspec.Raw) -> None:
        length = len(memoryview(raw))
        if length > size:
            raise _invalid(name, f"`{name}` has {length} bytes, at most {size} are taken")

    return bound


def _at_least_0(name: str, raw: msgspec.Raw) -> None:
    if bytes(raw).isdigit():
        return  # nearly always, and every request is looked at
    number = _read(name, raw, int)
    if number is not None and number < 0:
        raise _invalid(name, f"`{name}` is {number}; 0 is the lowest")


def _few(items: int) -> Callable[[str, msgspec.Raw], None]:
    def bound(name: str, raw: msgspec.Raw) -> None:
        if len(memoryview(raw)) < 2 * items and name == "messages":
            return  # too short to be too many, and its type is known to be right
        found = _read(name, raw, list[msgspec.Raw])
        if found is not None and len(found) > items:
            raise _invalid(name, f"`{name}` has {len(found)} items, at most {items} are taken")

    return bound


def _stops(name: str, raw: msgspec.Raw) -> None:
    found: Any = _read(name, raw, _TEXTS)
    words = [found] if isinstance(found, str) else found or []
    if len(words) > STOPS or any(len(word.encode()) > STOP_BYTES for word in words):
        raise _invalid(name, f"`{name}` is at most {STOPS} texts of {STOP_BYTES} bytes")


def _schema(name: str, raw: msgspec.Raw) -> None:
    _no_longer(SCHEMA_BYTES)(name, raw)
    check_schema(name, raw)


def _regex(name: str, raw: msgspec.Raw) -> None:
    _no_longer(REGEX_BYTES)(name, raw)
    pattern = _read(name, raw, str)
    if pattern is not None:
        check_pattern(name, pattern)


def _in_time(name: str, raw: msgspec.Raw) -> None:
    if _read(name, raw, bool):
        raise _invalid(name, "an answer in the background outlives its request", "ask for a stream instead")


def _logprobs(name: str, raw: msgspec.Raw) -> None:
    number: Any = _read(name, raw, _TRUTH_OR_NUMBER)
    if isinstance(number, int) and not -1 < number <= TOP_LOGPROBS:
        raise _invalid(name, f"`{name}` is 0 to {TOP_LOGPROBS}")


_BOUNDS: Mapping[str, Callable[[str, msgspec.Raw], None]] = {
    **dict.fromkeys(_NOT_NEGATIVE, _at_least_0),
    **dict.fromkeys(_SCHEMAS, _schema),
    **dict.fromkeys(_LISTS, _few(LIST_ITEMS)),
    **dict.fromkeys(("stop", "stop_sequences"), _stops),
    **dict.fromkeys(("logprobs", "prompt_logprobs", "top_logprobs", "n_probs"), _logprobs),
    "messages": _few(MESSAGES),
    "guided_regex": _regex,
    "background": _in_time,
    "logit_bias": _no_longer(SCHEMA_BYTES),
}
