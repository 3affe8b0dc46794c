"""What is known of each model before any profile is looked at.

Owns the merge of what a person declared with what models.lock says: sizes, architecture, capabilities, and the
range that context and concurrency may take. Finds no fault (that is `fact_rules`) and places nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from imageworks.diagnostics.model import Span
from imageworks.model import stack
from imageworks.model.loaded import Loaded
from imageworks.model.lock import Architecture, LockedModel
from imageworks.plan import sources
from imageworks.values import dataclass

NOTHING_LOCKED = LockedModel.model_construct(origin="published")


@dataclass(frozen=True, slots=True)
class Range:
    """Whole numbers from `low` to `high`; equal ends are a demand. `why` says where they come from."""

    low: int
    high: int
    why: str
    span: Span | None

    @property
    def is_open(self) -> bool:
        """True when there is something to solve."""
        return self.high > self.low


@dataclass(frozen=True, slots=True)
class Amount:
    """A size in bytes, where it was read (`declared` | `lock`), and its place."""

    bytes: int
    origin: str
    span: Span | None


@dataclass(frozen=True, slots=True)
class Facts:
    """A model with everything that holds on every profile."""

    id: str
    model: stack.Model
    files: sources.Files
    weights: Amount | None
    kv: Amount | None
    total: Amount | None
    architecture: Architecture | None
    locked_quantization: str | None
    quantization: str | None
    capabilities: tuple[str, ...]
    context: Range
    concurrency: Range
    span: Span | None

    @property
    def kv_bytes_per_token(self) -> int | None:
        """2 (K and V) x layers x KV heads x head dimension x bytes of an element; None when not known.

        The element is 2 bytes, or 1 with vLLM's flag `kv-cache-dtype: fp8`.
        """
        net = self.architecture
        if net is None:
            return None
        element = 1 if str(self.model.vllm.get("kv-cache-dtype", "")).startswith("fp8") else 2
        return 2 * net.layers * net.kv_heads * net.head_dim * element

    @property
    def keeps_kv(self) -> bool:
        """True when the model keeps a KV cache: it writes text, or its network is known to have one."""
        per_token = self.kv_bytes_per_token
        return "chat" in self.capabilities if per_token is None else per_token > 0

    @property
    def missing(self) -> str:
        """The fact without which no memory can be planned, in words; "" when all are known."""
        if self.model.url is not None or self.total is not None:
            return ""
        if self.weights is None:
            return "the size of its weights"
        if self.keeps_kv and self.kv is None and self.architecture is None:
            return "its layers and KV heads"
        return ""


def gather(loaded: Loaded) -> Mapping[str, Facts]:
    """The facts of every model, by id in sorted order."""
    return {model_id: _facts(loaded, model_id) for model_id in sorted(loaded.stack.models)}


def _facts(loaded: Loaded, model_id: str) -> Facts:
    models = loaded.stack.models
    model, home = models[model_id], sources.origin(models, model_id)
    locked = loaded.lock.models.get(model_id) or loaded.lock.models.get(home) or NOTHING_LOCKED
    capabilities = model.capabilities or models[home].capabilities or locked.capabilities or ("chat",)
    return Facts(
        id=model_id,
        model=model,
        files=sources.files(models[home].source, loaded.stack.roots.models.default),
        weights=_weights(loaded, model_id, home, locked),
        kv=_declared(loaded, model_id, "kv"),
        total=_declared(loaded, model_id, "total"),
        architecture=locked.architecture,
        locked_quantization=locked.quantization,
        quantization=model.quantization or models[home].quantization or locked.quantization,
        capabilities=tuple(capabilities),
        context=_context(loaded, model_id, locked.architecture),
        concurrency=_concurrency(loaded, model_id),
        span=loaded.key("models", model_id),
    )


def _weights(loaded: Loaded, model_id: str, home: str, locked: LockedModel) -> Amount | None:
    declared = _declared(loaded, model_id, "weights") or _declared(loaded, home, "weights")
    if declared is not None or locked.weights_bytes is None:
        return declared
    return Amount(locked.weights_bytes, "lock", None)


def _declared(loaded: Loaded, model_id: str, term: str) -> Amount | None:
    size = getattr(loaded.stack.models[model_id].vram, term)
    return None if size is None else Amount(size, "declared", loaded.value("models", model_id, "vram", term))


def _context(loaded: Loaded, model_id: str, net: Architecture | None) -> Range:
    own = loaded.stack.models[model_id].context
    limit = None if net is None else net.context_limit
    if own is None:
        return _default_context(loaded, limit)
    span = loaded.value("models", model_id, "context")
    if isinstance(own, int):
        return Range(own, own, "declared", span)
    if limit is not None and own.at_least <= limit < own.up_to:
        return Range(own.at_least, limit, f"declared, up to the weights' own limit of {limit}", span)
    return Range(own.at_least, own.up_to, "declared", span)


def _default_context(loaded: Loaded, limit: int | None) -> Range:
    default, span = loaded.stack.defaults.context, loaded.value("defaults", "context")
    low, high = (default, default) if isinstance(default, int) else (default.at_least, default.up_to)
    if limit is not None and limit < high:
        return Range(min(low, limit), limit, f"the weights' own limit, below defaults.context {high}", span)
    return Range(low, high, "defaults.context", span)


def _concurrency(loaded: Loaded, model_id: str) -> Range:
    own = loaded.stack.models[model_id].concurrency
    value = loaded.stack.defaults.concurrency if own is None else own
    path = ("defaults", "concurrency") if own is None else ("models", model_id, "concurrency")
    low, high = (value, value) if isinstance(value, int) else (value.at_least, value.up_to)
    return Range(low, high, "defaults.concurrency" if own is None else "declared", loaded.value(*path))
