"""The prompts of the stack as one content-addressed bundle.

Owns the canonical form that is hashed: JSON with sorted keys, no blanks, texts in Unicode form NFC. Renders
nothing; slots such as `{{ title }}` stay as they are.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable
from typing import Any

from imageworks.model.loaded import Loaded
from imageworks.model.prompts import PromptProfile
from imageworks.plan.ir import Bundle, Prompt, PromptBinding


def canonical(value: Any, parts: Callable[[Any], Any] | None = None) -> str:
    """One text per meaning: sorted keys, no blanks, NFC. `parts` turns a value that is not JSON into one that is."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=parts)
    return unicodedata.normalize("NFC", text)


def sha256(value: Any, parts: Callable[[Any], Any] | None = None) -> str:
    """Hex digest of the canonical text of `value`."""
    return hashlib.sha256(canonical(value, parts).encode("utf-8", "surrogatepass")).hexdigest()


def bundle(loaded: Loaded) -> Bundle:
    """All prompt profiles of the stack and what binds to them, both sorted."""
    prompts = tuple(_prompt(*key, loaded.prompt_profiles[key]) for key in sorted(loaded.prompt_profiles))
    bindings = tuple(
        PromptBinding(stage, bound.role, stage.split(".", 1)[0], bound.profile)
        for stage, bound in sorted(loaded.stack.prompts.bind.items())
    )
    parts = [[item.app, item.profile, item.hash] for item in prompts]
    return Bundle(prompts, bindings, sha256([parts, [[item.stage, item.role, item.profile] for item in bindings]]))


def _prompt(app: str, profile: str, text: PromptProfile) -> Prompt:
    content = {"app": app, "profile": profile, "version": text.version, "system": text.system, "user": text.user}
    return Prompt(app, profile, text.version, text.system, text.user, text.layers, sha256(content))
