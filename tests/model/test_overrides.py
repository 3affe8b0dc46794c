"""What one profile, or one machine, sees differently."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from imageworks.model.layers import LOCAL
from imageworks.model.load import Outcome, load
from imageworks.model.loaded import Loaded
from imageworks.plan.resolve import resolve
from imageworks.source.files import MemoryFiles

Read = Callable[..., Outcome]
HEAD = """version: 1
models:
  m:
    backend: llamacpp
    source: {path: m.gguf}
    vram: {weights: 1GiB, kv: 0.5GiB}
    aliases: [a]
    roles: {chat: 50}
"""
OVERRIDE = """profiles:
  development:
    override:
      defaults: {context: 1024}
      models: {m: {aliases+: [b], roles: {chat: 70}}}
"""


def loaded(outcome: Outcome) -> Loaded:
    assert outcome.loaded is not None, outcome.diagnostics
    return outcome.loaded


def local(text: str, own: str, **files: str) -> Outcome:
    return load("stack.yaml", MemoryFiles({"stack.yaml": text, LOCAL: own, **files}), "x", local=True)


def test_an_override_counts_for_its_profile_alone(read: Read) -> None:
    found = loaded(read(HEAD + OVERRIDE))
    assert found.on("development").stack.models["m"].aliases == ("a", "b")
    assert found.on("compact_8gb").stack.models["m"].aliases == ("a",)
    plans = {plan.profile: plan for plan in resolve(found)[0]}
    here, there = plans["development"].models[0], plans["compact_8gb"].models[0]
    assert (here.context, here.aliases) == (1024, ("a", "b"))
    assert (there.context, there.aliases) == (8192, ("a",))
    priorities = {name: plan.roles[0].candidates[0].priority for name, plan in plans.items()}
    assert {name for name, priority in priorities.items() if priority == 70} == {"development"}
    assert list(plans) == sorted(plans)


def test_an_overridden_value_remembers_what_it_stands_over(read: Read) -> None:
    found = loaded(read(HEAD + OVERRIDE)).on("development")
    (below,) = found.origins["models", "m", "roles", "chat"]
    place = found.value("models", "m", "roles", "chat")
    assert place is not None
    assert (below.value.line, place.line) == (8, 13)


def test_a_mistake_in_an_override_is_told_once_and_one_below_it_too(read: Read) -> None:
    text = HEAD.replace("kv:", "kw:") + OVERRIDE.replace("aliases+", "alaises+")
    assert sorted((item.code, item.message) for item in read(text).diagnostics) == [
        ("IW201", "unknown key `kw`"),
        ("IW313", "`alaises+` has nothing to append to"),
    ]


@pytest.mark.parametrize("key", ["profiles: {}", "roots: {}", "name: x", "version: 1", "include: []", "variables: {}"])
def test_what_holds_for_the_whole_stack_has_no_place_in_an_override(read: Read, key: str) -> None:
    (found,) = read(HEAD + f"profiles:\n  development:\n    override:\n      {key}\n").diagnostics
    assert found.primary is not None
    assert (found.code, found.primary.span.line) == ("IW201", 12)
    assert "override" in found.message


def test_an_override_that_is_no_map_is_told(read: Read) -> None:
    (found,) = read(HEAD + "profiles: {development: {override: 5}}\n").diagnostics
    assert found.code == "IW200"


def test_a_profile_that_is_too_small_for_its_override_is_told(read: Read) -> None:
    text = (
        HEAD
        + "profiles: {development: {override: {models: {m: {vram: {weights: 40GiB}}}}}}\nroles: {chat: {max_tokens: 9}}\n"
    )
    plans, found = resolve(loaded(read(text)))
    assert plans == ()
    assert {item.message for item in found if item.is_error} == {
        "role `chat` has no model on development",
        "m does not fit the host memory of development: 36.8 GiB short",
    }


def test_the_machines_own_layer_is_read_only_when_asked_for() -> None:
    own = "models: {m: {roles: {chat: 90}}}\n"
    text = HEAD + OVERRIDE
    files = MemoryFiles({"stack.yaml": text, LOCAL: own})
    with_it, without = loaded(local(text, own)), loaded(load("stack.yaml", files, "x"))
    assert (with_it.local, without.local) == (("models.m.roles.chat",), ())
    assert (with_it.stack.models["m"].roles, without.stack.models["m"].roles) == ({"chat": 90}, {"chat": 50})
    assert LOCAL in with_it.inputs
    assert LOCAL not in without.inputs


def test_the_machines_own_layer_lies_above_overrides_and_its_own_override_above_it() -> None:
    own = "models: {m: {roles: {chat: 90}}}\nprofiles: {development: {override: {models: {m: {aliases+: [c]}}}}}\n"
    found = loaded(local(HEAD + OVERRIDE, own)).on("development").stack.models["m"]
    assert (found.roles, found.aliases) == ({"chat": 90}, ("a", "b", "c"))


def test_the_example_of_the_language(read: Read) -> None:
    text = HEAD + "  pixtral-12b-q4: {backend: ollama, source: {ollama: x}, vram: {weights: 1GiB, kv: 1GiB}}\n"
    own = "profiles: {constrained_16gb: {headroom: 0.5GiB}}\nmodels-: [pixtral-12b-q4]\nmodels: {m: {context: 16384}}\n"
    assert "pixtral-12b-q4" in loaded(read(text)).stack.models
    found = loaded(local(text, own))
    assert sorted(found.stack.models) == ["m"]
    assert found.local == ("profiles.constrained_16gb.headroom", "models-", "models.m.context")
    assert budget(found) - budget(loaded(read(text))) == pytest.approx(0.7 * 2**30, abs=2)


def budget(found: Loaded) -> int:
    plan = next(plan for plan in resolve(found)[0] if plan.profile == "constrained_16gb")
    return plan.devices[0].budget


def test_a_built_in_profile_can_be_removed(read: Read) -> None:
    assert "compact_8gb" not in loaded(read(HEAD + "profiles-: [compact_8gb]\n")).stack.profiles
    (found,) = read(HEAD + "profiles-: [compact_9gb]\n").diagnostics
    assert found.code == "IW312"


def test_a_mistake_in_the_machines_own_layer_is_told_there() -> None:
    (found,) = local(HEAD, "models-: [n]\n").diagnostics
    assert found.primary is not None
    assert (found.code, found.primary.span.file) == ("IW312", LOCAL)


def test_only_the_machines_own_layer_names_a_folder_of_the_machine() -> None:
    roots = "roots: {models: {default: /srv//models/}}\n"
    assert loaded(local(HEAD, roots)).stack.roots.models.default == "/srv/models"
    for outcome in (local(HEAD + roots, "name: mine\n"), local(HEAD, "prompts: {path: /srv/prompts}\n")):
        assert [item.code for item in outcome.diagnostics] == ["IW304"]


def test_the_version_of_the_machines_own_layer_is_no_change_of_the_stack() -> None:
    found = loaded(local(HEAD, "version: 1\nmodels: {m: {context: 4096}}\n"))
    assert found.local == ("models.m.context",)


class Locked(MemoryFiles):
    """A folder in which some names may not be read or listed."""

    def __init__(self, files: dict[str, str | bytes], *locked: str) -> None:
        super().__init__(files)
        self._locked = locked

    def read(self, name: str) -> bytes:
        self._ask(name)
        return super().read(name)

    def names(self, folder: str) -> tuple[str, ...]:
        self._ask(folder)
        return super().names(folder)

    def _ask(self, name: str) -> None:
        if name in self._locked:
            raise PermissionError(13, "Permission denied", name)


@pytest.mark.parametrize("name", [LOCAL, "prompts"])
def test_what_may_not_be_read_is_told_and_never_passed_over(name: str) -> None:
    files = {"stack.yaml": HEAD + "prompts: {path: prompts}\n"}
    (found,) = load("stack.yaml", Locked({**files}, name), "x", local=True).diagnostics
    assert (found.code, found.message) == ("IW111", f"{name} cannot be read: permission denied")
