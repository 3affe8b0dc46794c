"""What roles ask of models: images, capabilities, and the context one request may need (IW413).

Owns the reach of a role (itself and its fallbacks), the largest number of images a model must take, and the proof
that a request which keeps the contract fits the context. Orders nothing: that is `roles`.
"""

from __future__ import annotations

from collections.abc import Iterator

from imageworks.model.loaded import Loaded
from imageworks.model.stack import Role, Stack
from imageworks.plan.facts import Facts
from imageworks.plan.images import image_tokens
from imageworks.values import dataclass

RESERVE_TOKENS = 64
"""Chat template, role markers and special tokens of a request."""
PROMPT_TOKENS = 512
"""Allowed for the text of a request, or the longest prompt bound to the role where that is more."""
CHARACTERS_PER_TOKEN = 3
"""Low on purpose (English has about 4), so that a bound prompt is rather over- than underestimated."""


def reach(stack: Stack, role: str) -> tuple[str, ...]:
    """`role` and its fallbacks, depth first in declared order, each once. Unknown names are skipped."""
    seen: dict[str, None] = {}
    waiting = [role]
    while waiting:
        name = waiting.pop(0)
        if name not in seen and name in stack.roles:
            seen[name] = None
            waiting = [*stack.roles[name].fallback, *waiting]
    return tuple(seen)


def images_max(stack: Stack, facts: Facts) -> tuple[int, str]:
    """Images in one request that the model must take, and why; (0, …) for a model without vision."""
    if "vision" not in facts.capabilities:
        return 0, "no vision"
    asked = {
        name: role.images.max
        for name, role in sorted(stack.roles.items())
        if role.images is not None and any(served in facts.model.roles for served in reach(stack, name))
    }
    if not asked:
        return 1, "no role asks for images: one by name"
    most = max(asked.values())
    roles = ", ".join(name for name, count in asked.items() if count == most)
    return most, f"the most that a role it can answer allows: {roles}"


def lacks(role: Role, facts: Facts) -> str:
    """Why the model cannot keep the role's contract on any machine; "" when it can."""
    missing = [word for word in role.requires if word not in facts.capabilities]
    if missing:
        return f"lacks capability {', '.join(missing)}"
    if role.images is not None and role.images.max > 0 and "vision" not in facts.capabilities:
        return "takes no images"
    return ""


@dataclass(frozen=True, slots=True)
class Proof:
    """The tokens that one request of a role may take on a model, against its context."""

    images: int
    tokens_of_image: int
    answer: int
    prompt: int
    context: int

    @property
    def total(self) -> int:
        """Tokens of the largest request."""
        return self.images * self.tokens_of_image + self.answer + self.prompt + RESERVE_TOKENS

    @property
    def holds(self) -> bool:
        """True when the largest request fits."""
        return self.total <= self.context

    @property
    def words(self) -> str:
        """The sum."""
        sum_ = f"{self.images * self.tokens_of_image} images + {self.answer} answer + {self.prompt} prompt"
        return f"{sum_} + {RESERVE_TOKENS} reserve = {self.total}"


def proof(loaded: Loaded, role_name: str, facts: Facts, context: int) -> Proof | None:
    """The proof for `role_name` on a model; None where the role takes no images or the image's tokens are unknown.

    Models that write no text (embedding) have none: their images do not share the context with an answer.
    """
    role = loaded.stack.roles[role_name]
    if role.images is None or "chat" not in facts.capabilities:
        return None
    family = facts.architecture.family if facts.architecture else None
    tokens = image_tokens(family, role.images.max_edge)
    if tokens is None:
        return None
    return Proof(role.images.max, tokens, role.max_tokens or 0, prompt_tokens(loaded, role_name), context)


def prompt_tokens(loaded: Loaded, role: str) -> int:
    """Tokens allowed for the text of a request of `role`."""
    return max((PROMPT_TOKENS, *_bound(loaded, role)))


def _bound(loaded: Loaded, role: str) -> Iterator[int]:
    for stage, binding in loaded.stack.prompts.bind.items():
        if binding.role != role:
            continue
        text = loaded.prompt_profiles.get((stage.split(".", 1)[0], binding.profile))
        if text is not None:
            yield -(-(len(text.system) + len(text.user)) // CHARACTERS_PER_TOKEN)
