"""Two plans, field by field: what counts as a change, which key and line are behind it, and what merely follows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.model.loaded import Loaded
from imageworks.plan import diff
from imageworks.plan.ir import Plan
from imageworks.plan.keys import keys
from imageworks.plan.resolve import resolve
from imageworks.targets.plan_json import document

Read = Callable[..., Loaded]

STACK = """version: 1
defaults: {grace: 5m}
profiles:
  development:
    match: {gpus: 0}
    host_memory: 4GiB
  card: {match: {gpus: 1, vram: ">=14GiB <20GiB", compute: ">=8.0"}, headroom: 1GiB}
models:
  small:
    backend: llamacpp
    source: {path: small.gguf}
    vram: {weights: 1GiB, kv: 0.5GiB}
    context: 2048
    roles: {chat: 20}
  other:
    backend: vllm
    source: {path: other}
    vram: {weights: 2GiB, kv: 1GiB}
    context: 4096
    quantization: fp16
    roles: {chat: 10}
    vllm: {seed: 1}
"""


def plan_of(loaded: Loaded, profile: str) -> Plan:
    plans, findings = resolve(loaded)
    assert plans, findings
    return next(plan for plan in plans if plan.profile == profile)


def edited(read: Read, profile: str, *edits: tuple[str, str]) -> tuple[diff.Change, ...]:
    """Changes after replacing texts of STACK, each of which must stand in it."""
    text = STACK
    for there, instead in edits:
        assert there in text
        text = text.replace(there, instead)
    old, new = read(STACK), read(text)
    return diff.between(plan_of(old, profile), plan_of(new, profile), new)


@pytest.mark.parametrize(
    ("profile", "edit", "field", "line"),
    [
        ("development", ("context: 2048", "context: 1024"), "models.small.context", 13),
        ("development", ("grace: 5m", "grace: 6m"), "models.small.grace", 2),
        ("development", ("host_memory: 4GiB", "host_memory: 5GiB"), "profiles.development.host_memory", 6),
        ("development", ("chat: 20", "chat: 5"), "models.small.roles.chat", 14),
        ("card", ("headroom: 1GiB", "headroom: 2GiB"), "profiles.card.headroom", 7),
        ("card", ('">=14GiB', '">=15GiB'), "profiles.card.match.vram", 7),
        ("card", ("vllm: {seed: 1}", "vllm: {seed: 2}"), "models.other.vllm.seed", 22),
        ("card", ("vllm: {seed: 1}", "vllm: {max-logprobs: 3}"), "models.other.vllm.max-logprobs", 22),
        ("card", ("weights: 1GiB", "weights: 1.5GiB"), "models.small.vram", 12),
    ],
)
def test_a_change_names_the_key_and_the_line_behind_it(
    read: Read, profile: str, edit: tuple[str, str], field: str, line: int
) -> None:
    causes = diff.causes(edited(read, profile, edit))
    found = {one.field: one.at for one in causes}
    assert field in found, found
    at = found[field]
    assert at is not None
    assert (at.file, at.line) == ("stack.yaml", line)


def test_what_follows_from_a_cause_is_told_apart(read: Read) -> None:
    found = edited(read, "development", ("context: 2048", "context: 1024"))
    assert [one.field for one in diff.causes(found)] == ["models.small.context"]
    derived = {one.path for one in found if one.derived}
    assert ("models", "small", "launch", "flags", "--ctx-size", "value") in derived


def test_a_sum_that_changed_alone_is_its_own_cause(read: Read) -> None:
    causes = diff.causes(edited(read, "card", ("weights: 1GiB", "weights: 1.5GiB")))
    assert causes
    assert all(one.derived for one in causes)


def test_moved_lines_and_comments_are_no_change(read: Read) -> None:
    assert edited(read, "card", ("models:\n", "# one more line\nmodels:\n")) == ()


def test_a_model_that_comes_or_goes_is_one_change_of_it(read: Read) -> None:
    text = STACK.replace(
        "  other:",
        "  third:\n    backend: llamacpp\n    source: {path: t.gguf}\n    vram: {weights: 1GiB, kv: 1GiB}\n  other:",
    )
    old, new = read(STACK), read(text)
    came = diff.between(plan_of(old, "card"), plan_of(new, "card"), new)
    assert [(one.path, one.old, one.at.line if one.at else None) for one in diff.of_model(came, "third")] == [
        (("models", "third"), None, 15)
    ]
    went = diff.between(plan_of(new, "card"), plan_of(old, "card"), old)
    assert [one.new for one in diff.of_model(went, "third")] == [None]


def test_a_plan_read_back_from_its_file_is_the_same_plan(shipped: Mapping[str, Plan], shipped_loaded: Loaded) -> None:
    for plan in shipped.values():
        back = diff.normal(json.loads(json.dumps(document(plan))))
        assert diff.changes(back, diff.data(plan), shipped_loaded, plan.profile) == ()


def test_every_field_of_a_plan_that_differs_is_found(shipped: Mapping[str, Plan], shipped_loaded: Loaded) -> None:
    plan = shipped["development"]
    for model in plan.models:
        fields: dict[str, Any] = {
            "grace_s": 1.0,
            "port": 1,
            "pinned": not model.pinned,
            "context": 1,
            "aliases": ("a",),
            "host": "::1",
        }
        for name, value in fields.items():
            changed = dataclasses.replace(model, **{name: value})
            models = tuple(changed if each is model else each for each in plan.models)
            found = diff.between(plan, dataclasses.replace(plan, models=models), shipped_loaded)
            assert [one.path for one in found] == [("models", model.id, name)]


TREES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: st.dictionaries(st.text("xyz", min_size=1, max_size=2), inner, max_size=3),
    max_leaves=12,
)


@given(TREES, TREES)
def test_trees_are_equal_exactly_when_nothing_is_reported(old: Any, new: Any) -> None:
    def known(tree: Any) -> Any:  # a key with nothing behind it is no key
        if not isinstance(tree, dict):
            return tree
        return {key: value for key, item in tree.items() if (value := known(item)) is not None}

    old, new = known(old), known(new)
    assert bool(tuple(diff.compare(old, new))) == (old != new)


@given(TREES, TREES)
def test_putting_the_reported_values_in_gives_the_new_tree(old: Any, new: Any) -> None:
    def at(tree: Any, path: tuple[str, ...]) -> Any:
        for part in path:
            tree = tree.get(part)
        return tree

    for path, before, after in diff.compare(old, new):
        assert before != after
        assert (at(old, path), at(new, path)) == (before, after)


@given(st.lists(st.text("abcdefgh_", min_size=1, max_size=8), min_size=1, max_size=5))
def test_every_path_has_a_key(path: list[str]) -> None:
    for section in ("models", "roles", "policy", "devices", "proxy", "options", "unplaced", "roots", "stop_wait_s"):
        found = keys("p", (section, *path))
        assert found
        assert all(key for key in found)
