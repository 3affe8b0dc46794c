from __future__ import annotations

from collections.abc import Callable

import pytest

from imageworks.model.load import Outcome

Found = Callable[..., list[tuple[str, int, int]]]
Read = Callable[..., Outcome]


def model(name: str, extra: str = "", source: str = "{path: x}") -> str:
    return f"  {name}: {{backend: vllm, source: {source}{', ' + extra if extra else ''}}}\n"


def stack(*models: str, rest: str = "") -> str:
    return f"version: 1\nmodels:\n{''.join(models)}{rest}"


@pytest.mark.parametrize(
    ("text", "code", "label"),
    [
        (stack(model("a", "roles: {captoin: 1}")), "IW301", "no role of this name; did you mean `caption`?"),
        (stack(model("a"), rest="groups: {g: {models: [b], profiles: [development]}}"), "IW302", "no model of this name"),
        (stack(model("a"), rest="groups: {g: {models: [chat], profiles: [development]}}"), "IW302", "`chat` is a role, this wants a model"),
        (stack(model("a"), rest="groups: {g: {models: [a], profiles: [develop]}}"), "IW302", "no profile of this name; did you mean `development`?"),
        (stack(model("a", source="{same_as: qwen}"), model("qwen3")), "IW302", "no model of this name; did you mean `qwen3` (line 4)?"),
        (stack(model("a"), rest="roles: {chat: {fallback: [caption, nobody]}}"), "IW309", "no role of this name"),
        (stack(model("a"), rest="roles: {chat: {may_be_missing_on: [mars]}}"), "IW302", "no profile of this name"),
        (stack(model("a"), rest="prompts: {bind: {app.stage: {role: nobody, profile: p}}}"), "IW701", "no role of this name"),
    ],
)  # fmt: skip
def test_a_name_that_leads_nowhere_is_found(read: Read, text: str, code: str, label: str) -> None:
    files = {"prompts/base/app/p.yaml": "version: 1\nuser: hello\n"}
    found = read(text, files).diagnostics
    assert [(item.code, item.primary and item.primary.text) for item in found] == [(code, label)]


@pytest.mark.parametrize(
    ("text", "code", "first", "second"),
    [
        (stack(model("a", "aliases: [x]"), model("b", "aliases: [x]")), "IW303", 3, 4),
        (stack(model("a"), model("b", "aliases: [a]")), "IW303", 3, 4),
        (stack(model("a", "aliases: [x, x]")), "IW303", 3, 3),
        (stack(model("a.b"), model("a_b")), "IW303", 3, 4),
        (
            stack(model("a", "pin: {port: {value: 24_001, because: x}}"), model("b", "pin: {port: {value: 24001, because: y}}")),
            "IW314", 3, 4,
        ),
    ],
)  # fmt: skip
def test_what_must_be_unique_is_shown_at_both_places(read: Read, text: str, code: str, first: int, second: int) -> None:
    (found,) = read(text).diagnostics
    assert found.primary is not None
    assert (found.code, found.secondary[0].span.line, found.primary.span.line) == (code, first, second)


@pytest.mark.parametrize(
    ("text", "code", "way"),
    [
        (stack(model("a"), rest="roles: {caption: {fallback: [caption]}}"), "IW309", "caption -> caption"),
        (stack(model("a"), rest="roles: {vision_general: {fallback: [judge]}, judge: {fallback: [vision_general]}}"), "IW309", "vision_general -> judge -> vision_general"),
        (stack(model("a", source="{same_as: b}"), model("b", source="{same_as: a}")), "IW307", "a -> b -> a"),
    ],
)  # fmt: skip
def test_a_circle_is_one_finding_that_shows_the_way(read: Read, text: str, code: str, way: str) -> None:
    (found,) = read(text).diagnostics
    assert (found.code, found.primary and found.primary.text.split(" -> ")) == (code, way.split(" -> "))


def test_two_ways_to_one_role_are_no_circle(found: Found) -> None:
    assert found("roles: {judge: {fallback: [caption, keywords]}, narration: {fallback: [judge, caption]}}\n") == []


def test_built_in_roles_forget_profiles_that_the_stack_has_not(read: Read) -> None:
    outcome = read(stack(model("a"), rest='profiles: {mine: {match: {gpus: 1, vram: ">=20GiB"}}}'))
    assert outcome.loaded is not None
    assert outcome.loaded.stack.roles["reasoning"].may_be_missing_on == ("development",)
