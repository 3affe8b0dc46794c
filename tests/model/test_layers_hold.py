"""Whatever stands in the layers, loading ends with a stack or with findings that have a place."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from imageworks.model.layers import LOCAL
from imageworks.model.load import load
from imageworks.plan.resolve import resolve
from imageworks.source.files import MemoryFiles

BASE: dict[str, Any] = {
    "version": "1",
    "variables": {"A": "x"},
    "models": {"m": {"backend": "ollama", "source": {"ollama": "m"}, "vram": {"total": "1GiB", "because": "seen"}}},
}
WORDS = st.sampled_from(
    ["m", "n", "chat", "development", "a.yaml", "c.yaml", "stack.yaml", "${A}", "${B}", "$$", "${", "1", "1GiB", "5m", "", "ollama"]
)  # fmt: skip
SUFFIX = st.sampled_from(["", "", "", "+", "-", "="])
KEYS = st.sampled_from(
    ["models", "m", "n", "roles", "chat", "profiles", "development", "override", "include", "variables", "A", "defaults", "context",
     "backend", "source", "ollama", "same_as", "aliases", "requires", "may_be_missing_on", "match", "gpus", "prompts", "path", "layers", "name"]
)  # fmt: skip
NAMES = st.builds(str.__add__, KEYS, SUFFIX)
TREES = st.recursive(
    WORDS | st.lists(WORDS, max_size=3), lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
WILD = st.dictionaries(NAMES, TREES, max_size=5)
SENSIBLE: list[dict[str, Any]] = [
    {"defaults": {"context": "512"}},
    {"variables": {"A": "y"}},
    {"name": "mine"},
    {"models": {"m": {"aliases": ["${A}", "b"]}}},
    {"models": {"m": {"aliases+": ["c"], "aliases-": ["b"]}}},
    {"models": {"m": {"roles=": {"chat": "5"}}}},
    {"models": {"n": {"backend": "ollama", "source": {"same_as": "m"}}}},
    {"models-": ["n"]},
    {"roles": {"chat": {"may_be_missing_on+": ["development"]}}},
    {"profiles-": ["compact_8gb"]},
    {"profiles": {"compact_12gb": {"headroom": "2GiB", "override": {"models": {"m": {"grace": "9m"}}}}}},
    {"profiles": {"mine": {"match": {"gpus": "1", "vram": ">=8GiB"}}}},
]
LAYERS = st.one_of(st.sampled_from(SENSIBLE), st.sampled_from(SENSIBLE), st.just({}), WILD)


@settings(max_examples=150, deadline=None)
@given(top=LAYERS, low=LAYERS, other=LAYERS, own=LAYERS, override=LAYERS)
def test_layers_load_or_are_explained(
    top: dict[str, Any], low: dict[str, Any], other: dict[str, Any], own: dict[str, Any], override: dict[str, Any]
) -> None:
    stack = {**BASE, "include": ["a.yaml"], "profiles": {"development": {"override": override}}}
    files = {"stack.yaml": stack, "a.yaml": low, "b.yaml": other, "c.yaml": top, LOCAL: own}
    held = MemoryFiles({name: json.dumps(tree) for name, tree in files.items()})
    outcome = load(("stack.yaml", "b.yaml", "c.yaml"), held, "x", local=True)
    if outcome.loaded is not None:
        resolve(outcome.loaded)
        return
    assert any(item.is_error for item in outcome.diagnostics)
    for item in outcome.diagnostics:
        assert item.primary is not None, item
        text = outcome.texts[item.primary.span.file]
        assert 0 <= item.primary.span.start <= item.primary.span.end <= len(text)
