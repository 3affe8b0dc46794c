"""What the proxy does to conversations and images, for each role.

Owns the layers: a role's own keys over those of `proxy.history` and `proxy.images`. Pure.
"""

from __future__ import annotations

from imageworks.model import stack
from imageworks.plan.facts import Facts
from imageworks.plan.images import image_tokens
from imageworks.plan.ir import History, HistoryRule, ImageRule


def history(proxy: stack.Proxy, role: stack.Role | None = None) -> History:
    """The rules for requests of `role`, or for those that name a model."""
    base, own = proxy.history, role.history if role else None
    if own is None:
        return History(_rule(base.vision), _rule(base.reasoning))
    if isinstance(own, str):
        return History()
    vision = _over(base.vision, own.vision) if "vision" in own.model_fields_set else base.vision
    reasoning = own.reasoning if "reasoning" in own.model_fields_set else base.reasoning
    return History(_rule(vision), _rule(reasoning))


def _over(base: stack.VisionHistory | str, own: stack.VisionHistory | str) -> stack.VisionHistory | str:
    """The keys that a role says over those of the proxy."""
    if isinstance(base, str) or isinstance(own, str):
        return own
    return base.model_copy(update=own.model_dump(include=own.model_fields_set))


def _rule(said: stack.VisionHistory | stack.ReasoningHistory | str) -> HistoryRule | None:
    if isinstance(said, str):
        return None
    return HistoryRule(said.keep_turns, said.keep_system, getattr(said, "max_bytes", None))


def images(proxy: stack.Proxy, role: stack.Role | None = None) -> ImageRule:
    """What an image may be in a request of `role`, or in one that names a model."""
    base, own = proxy.images, role.images if role else None
    if own is None:
        return ImageRule(base.max_bytes, base.jpeg_quality, tuple(base.formats))
    return ImageRule(
        base.max_bytes if own.max_bytes is None else own.max_bytes,
        own.jpeg_quality or base.jpeg_quality,
        tuple(base.formats),
        own.max_edge,
    )


def tokens_of_image(whole: stack.Stack, facts: Facts) -> int:
    """The most that one image takes of the model's context, over the roles it serves; 0 where that is not known."""
    family = facts.architecture.family if facts.architecture else None
    edges = [role.images.max_edge for name, role in whole.roles.items() if role.images and name in facts.model.roles]
    known = [image_tokens(family, edge) for edge in edges or [None]]
    return max((tokens for tokens in known if tokens is not None), default=0)
