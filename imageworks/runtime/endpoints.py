"""The endpoints that cost tokens: which there are, which kind of engine serves each, and what a model must be able to do.

Owns the one table that the proxy's paths, its judgement of requests, and the OpenAPI document are made of. A path that
does not stand here never reaches an engine. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Endpoint = Literal[
    "chat/completions",
    "completions",
    "embeddings",
    "responses",
    "rerank",
    "messages",
    "messages/count_tokens",
    "audio/transcriptions",
    "audio/translations",
    "audio/speech",
]
ALL = frozenset(("vllm", "llamacpp", "ollama", "openai"))
"""Every kind of engine; `openai` is any server that speaks OpenAI's API, so it is asked and answers for itself."""
_ANTHROPIC = ("anthropic-version", "anthropic-beta")
_FEW = ("temperature", "top_p", "top_k")


@dataclass(frozen=True, slots=True)
class Serving:
    """How one endpoint is served; its path at the engine is `/v1/` and its name.

    `limits` name the parameters that bound the answer, the one to fill in last. `sampling` maps a model's sampling
    values to this endpoint's names for them (None: all, as they are called); with `params` the stack's own parameters
    are put in. `form`: the body is a form with a file. `media` are the fields in which media may stand. `passes` are the
    client's headers that an engine gets; there are no others.
    """

    what: str
    backends: frozenset[str] = ALL
    paths: tuple[str, ...] = ()
    capability: str | None = None
    limits: tuple[str, ...] = ()
    sampling: Mapping[str, str] | None = field(default_factory=dict)
    params: bool = False
    form: bool = False
    media: tuple[str, ...] = ()
    dialect: Literal["openai", "anthropic"] = "openai"
    passes: tuple[str, ...] = ()


ENDPOINTS: Mapping[Endpoint, Serving] = {
    "chat/completions": Serving(
        "Answer a conversation", limits=("max_completion_tokens", "max_tokens"), sampling=None, params=True
    ),
    "completions": Serving(
        "Continue a text", limits=("max_completion_tokens", "max_tokens"), sampling=None, params=True
    ),
    "embeddings": Serving("Vectors of texts", capability="embedding"),
    "responses": Serving(
        "Answer in OpenAI's Responses form",
        limits=("max_output_tokens",),
        sampling={**{name: name for name in _FEW}, "max_tokens": "max_output_tokens"},
        params=True,
        media=("input", "tools"),
    ),
    "rerank": Serving(
        "Order documents by a query",
        backends=ALL - {"ollama"},
        paths=("/v1/rerank", "/rerank"),
        capability="rerank",
        media=("query", "documents"),
    ),
    "messages": Serving(
        "Answer in Anthropic's Messages form",
        limits=("max_tokens",),
        sampling={name: name for name in (*_FEW, "max_tokens")},
        params=True,
        media=("messages", "system", "tools"),
        dialect="anthropic",
        passes=_ANTHROPIC,
    ),
    "messages/count_tokens": Serving(
        "Count the tokens of an Anthropic request",
        backends=ALL - {"ollama"},
        media=("messages", "system", "tools"),
        dialect="anthropic",
        passes=_ANTHROPIC,
    ),
    "audio/transcriptions": Serving("Write down what is said", capability="audio", form=True),
    "audio/translations": Serving(
        "Write down in English what is said", backends=ALL - {"llamacpp", "ollama"}, capability="audio", form=True
    ),
    "audio/speech": Serving("Say a text", backends=ALL - {"vllm", "llamacpp"}, capability="audio"),
}
"""What vLLM 0.32, llama.cpp of October 2026 and Ollama 0.40 serve. A model server of vLLM or llama.cpp has many more
paths, which load, unload, sleep, or run code (`/invocations`, `/collective_rpc`, `/sleep`, `/slots`, `/props`); Ollama's
fetch and delete models (`/api/pull`, `/api/delete`). None of them is reachable."""


def paths() -> Mapping[str, Endpoint]:
    """Every path that is served, and its endpoint."""
    return {path: name for name, serving in ENDPOINTS.items() for path in serving.paths or (f"/v1/{name}",)}
