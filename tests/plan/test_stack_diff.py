"""Two stacks side by side: meaning is compared, the written words are shown, and what it does is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from imageworks.model.loaded import Loaded
from imageworks.plan.ir import Plan
from imageworks.plan.resolve import resolve
from imageworks.plan.stack_diff import Difference, Effect, Side, differences, effects

Read = Callable[..., Loaded]

STACK = """version: 1
profiles:
  card: {match: {gpus: 1, vram: ">=14GiB <20GiB", compute: ">=8.0"}, headroom: 1GiB}
models:
  small:
    backend: llamacpp
    source: {path: small.gguf}
    vram: {weights: 1GiB, kv: 0.5GiB}
    grace: 5m
    roles: {chat: 20}
  other:
    backend: llamacpp
    source: {path: other.gguf}
    vram: {weights: 6GiB, kv: 0.5GiB}
    roles: {chat: 10}
"""


@pytest.fixture
def side(read: Read) -> Callable[[str], Side]:
    return lambda text: Side(read(text), {"stack.yaml": text, "<built-in>": ""})


def test_the_same_value_in_other_words_is_no_difference(side: Callable[[str], Side]) -> None:
    other = STACK.replace("grace: 5m", "grace: 300s  # as before").replace(
        "roles: {chat: 20}", "roles:\n      chat: 20"
    )
    assert differences(side(STACK), side(other)) == ()


def test_a_difference_shows_the_written_words_and_both_places(side: Callable[[str], Side]) -> None:
    (found,) = differences(side(STACK), side("# a comment\n" + STACK.replace("grace: 5m", "grace: 1h30m")))
    assert (found.path, found.old, found.new) == (("models", "small", "grace"), "5m", "1h30m")
    assert found.at_old is not None
    assert found.at_new is not None
    assert (found.at_old.line, found.at_new.line) == (9, 10)


def test_a_value_that_nobody_wrote_is_called_a_default(side: Callable[[str], Side]) -> None:
    (found,) = differences(
        side(STACK), side(STACK.replace(", headroom: 1GiB", ", headroom: 2GiB, strategy: concurrent_limited"))
    )[1:]
    assert found == Difference(
        ("profiles", "card", "strategy"), "load_unload (default)", "concurrent_limited", None, found.at_new
    )


def test_whole_models_come_and_go(side: Callable[[str], Side]) -> None:
    without = STACK[: STACK.index("  other:")]
    (gone,) = differences(side(STACK), side(without))
    assert gone.path == ("models", "other")
    assert gone.new is None
    assert gone.at_old is not None
    (came,) = differences(side(without), side(STACK))
    assert came.old is None


def test_effects_are_told_where_they_are_felt(read: Read) -> None:
    def plan(text: str) -> Plan:
        plans, findings = resolve(read(text))
        assert plans, findings
        return next(plan for plan in plans if plan.profile == "card")

    narrow = STACK.replace("headroom: 1GiB", "headroom: 9GiB").replace("chat: 20", "chat: 5")
    found = {effect.what: effect for effect in effects(plan(STACK), plan(narrow))}
    assert found["models.other"] == Effect("models.other", "GPU 0", "left out (IW412)")
    assert found["roles.chat"] == Effect("roles.chat", "small, other", "small")
    assert not any(what.startswith("models.other.") for what in found)  # a model that is gone has no other effects
    assert effects(plan(STACK), plan(STACK)) == ()


def test_a_remote_model_has_no_port_and_an_empty_role_no_line(read: Read) -> None:
    def plan(text: str) -> Plan:
        return next(plan for plan in resolve(read(text))[0] if plan.profile == "card")

    remote = "  far: {backend: openai, url: 'https://h.example', roles: {chat: 1}}\n"
    found = {effect.what: effect for effect in effects(plan(STACK), plan(STACK + remote))}
    assert found["models.far"] == Effect("models.far", None, "remote")
    assert "models.far.port" not in found
    assert all(effect.new for effect in found.values())
