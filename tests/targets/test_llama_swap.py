from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from syrupy.assertion import SnapshotAssertion

from imageworks import contract
from imageworks.plan.ir import GIB, MIB, Device, Flag, Launch, Memory, Placement, Plan, PlannedModel, Policy, Term
from imageworks.targets import llama_swap, registry
from imageworks.targets.execspec import words as words_of
from imageworks.targets.llama_swap_sets import EXACT, room, together
from imageworks.targets.quoting import QuotingError

MakePlan = Callable[..., Plan]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r"))


def written(plan: Plan) -> str:
    (file,) = llama_swap.emit(plan, [plan])
    assert file.path == "llama-swap.yaml"
    return file.text


def config(plan: Plan) -> Any:
    return YAML(typ="safe", pure=True).load(written(plan))


def split(command: str) -> list[str]:
    """llama-swap's own splitting of `cmd`: golib/shlex, dialect Posix, state by state."""
    words: list[str] = []
    word: list[str] | None = None
    quote, position = "", 0
    while position < len(command):
        char, after = command[position], command[position + 1 : position + 2]
        position += 1
        if char == "\\" and quote != "'" and (not quote or after in '$`"\\'):
            word = [*(word or []), after]
            position += 1
        elif quote:
            quote, word = ("", word) if char == quote else (quote, [*(word or []), char])
        elif char in "'\"":
            quote, word = char, word or []
        elif char in " \t\n":
            words, word = (words, None) if word is None else ([*words, "".join(word)], None)
        else:
            word = [*(word or []), char]
    return words if word is None else [*words, "".join(word)]


def load(text: str, variables: dict[str, str]) -> str:
    """What llama-swap makes of a text: variables filled in, any other `${…}` an error."""
    filled = re.sub(r"\$\{env\.([A-Za-z0-9_]+)\}", lambda match: variables[match[1]], text)
    unknown = re.search(r"\$\{[a-zA-Z0-9_-]+\}", filled)
    assert unknown is None, f"llama-swap does not start: unknown macro {unknown}"
    return filled


def test_the_file_is_this(make_plan: MakePlan, snapshot: SnapshotAssertion) -> None:
    assert written(make_plan()) == snapshot


def test_a_backend_is_started_as_by_our_own_launcher(make_plan: MakePlan) -> None:
    plan = make_plan()
    found = config(plan)
    folders = {"IMAGEWORKS_MODELS": "/w/my models", "IMAGEWORKS_STORE": "/s"}
    tokens = {"models": "/w/my models", "store": "/s", "python": "python3", "stack": "."}
    started = [model for model in plan.models if model.launch is not None]
    assert list(found["models"]) == [model.id for model in started]
    for model in started:
        assert model.launch is not None
        words = [word for flag in model.launch.flags for word in words_of(flag)]
        entry = found["models"][model.id]
        assert split(load(entry["cmd"], folders)) == [contract.expand(word, tokens) for word in words]
        assert entry["proxy"] == f"http://127.0.0.1:{model.port}"
        assert f"CUDA_VISIBLE_DEVICES={','.join(map(str, model.launch.slots))}" in entry["env"]


PIECES = st.sampled_from(["${", "${PORT}", "${env.X}", "$", "{", "}", "'", '"', "\\", "#", " ", "x"])
HOSTILE = TEXT | st.lists(PIECES).map("".join)


@given(st.lists(HOSTILE, min_size=1))
def test_hostile_words_come_back_as_they_were(words: list[str]) -> None:
    command = " ".join(llama_swap.command_word(contract.escape(word), {}) for word in words)
    read = YAML(typ="safe", pure=True).load(f"cmd: {llama_swap.yaml(command)}\n")["cmd"]
    assert split(load(read, {})) == words


@pytest.mark.parametrize("word", ["a\nb", "a\rb", "a\0b"])
def test_what_a_command_cannot_carry_is_refused_and_told(make_plan: MakePlan, word: str) -> None:
    with pytest.raises(QuotingError):
        llama_swap.command_word(word, {})
    plan = make_plan()
    launch = Launch("model-x", (Flag("", word, "bad"),), {}, (), ())
    bad = dataclasses.replace(plan.models[3], id="bad", launch=launch)
    found = list(llama_swap.problems(dataclasses.replace(plan, models=(*plan.models, bad))))
    assert [model.id for model, _ in found] == ["bad"]


def test_an_alias_that_looks_like_a_macro_is_told(make_plan: MakePlan) -> None:
    plan = make_plan()
    models = (dataclasses.replace(plan.models[2], aliases=("${PORT}",)), *plan.models[3:])
    assert len(list(llama_swap.problems(dataclasses.replace(plan, models=models)))) == 1
    assert not list(llama_swap.problems(plan))


def test_idle_times_residents_roles_and_peers(make_plan: MakePlan) -> None:
    found = config(make_plan())
    assert found["models"]["qwen3_vl.8b"]["ttl"] == 0
    assert found["models"]["smollm2-135m"]["ttl"] == 120
    assert found["hooks"] == {"on_startup": {"preload": ["qwen3_vl.8b"]}}
    assert found["models"]["qwen3_vl.8b"]["aliases"] == ["qwen", "role:caption"]
    assert found["peers"] == {"gpt-remote": {"proxy": "https://llm.example.org", "models": ["gpt-remote"]}}
    assert found["models"]["smollm2-135m"]["concurrencyLimit"] == 257
    assert found["healthCheckTimeout"] == 180


def test_ollamas_models_are_left_out_and_told(make_plan: MakePlan) -> None:
    text = written(make_plan())
    assert "# not here: pixtral; " in text
    assert "pixtral" not in str(YAML(typ="safe", pure=True).load(text))


def test_a_profile_without_a_program_of_ours_is_still_a_configuration(make_plan: MakePlan) -> None:
    plan = make_plan()
    empty = dataclasses.replace(plan, models=plan.models[:2], policy=Policy("load_unload", 1, GIB, ()))
    assert config(empty)["models"] == {}


@st.composite
def profiles(draw: st.DrawFn) -> tuple[tuple[Device, ...], Policy, list[tuple[str, Placement, int]]]:
    gpus = draw(st.integers(0, 2))
    devices = tuple(Device(slot, draw(st.integers(4, 24)) * GIB, GIB) for slot in range(gpus))
    spots = [Placement("cpu", (), ""), *(Placement("gpu", (device.slot,), "") for device in devices)]
    spots += [Placement("gpu", (0, 1), "")] if gpus == 2 else []
    models = [
        (f"m{number}", draw(st.sampled_from(spots)), draw(st.integers(1, 12)) * GIB // 2)
        for number in range(draw(st.integers(1, EXACT + 3)))
    ]
    strategy = draw(st.sampled_from(["load_unload", "concurrent_limited"]))
    return devices, Policy(strategy, draw(st.integers(1, 4)), draw(st.integers(4, 12)) * GIB, ()), models


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(profiles())
def test_no_set_is_more_than_the_profile_holds_and_no_set_lacks_a_model_that_fits(
    make_plan: MakePlan, drawn: tuple[tuple[Device, ...], Policy, list[tuple[str, Placement, int]]]
) -> None:
    devices, policy, drawn_models = drawn
    base = make_plan()
    models = [_sized(base.models[3], *item) for item in drawn_models]
    plan = dataclasses.replace(base, devices=devices, policy=policy, models=tuple(models))
    space = room(plan)
    placed = [model for model in models if space.holds([model])]
    sets = [frozenset(found) for found in together(plan, placed)]
    assert {name for found in sets for name in found} == {model.id for model in placed}
    for found in sets:
        inside = [model for model in placed if model.id in found]
        assert space.holds(inside)
        assert not any(space.holds([*inside, other]) for other in placed if other.id not in found)
    if len(placed) <= 6:
        subsets = (part for size in range(1, len(placed) + 1) for part in itertools.combinations(placed, size))
        for part in subsets:
            if space.holds(part):
                assert any({model.id for model in part} <= found for found in sets)


def _sized(like: PlannedModel, name: str, spot: Placement, size: int) -> PlannedModel:
    return dataclasses.replace(like, id=name, placement=spot, memory=Memory((Term("weights", size, "lock", ""),)))


def test_residents_stand_in_every_set_and_keep_their_room(make_plan: MakePlan) -> None:
    plan = make_plan()
    gpu = Placement("gpu", (0,), "")
    kept, other = (_sized(plan.models[3], name, gpu, 6 * GIB) for name in ("kept", "other"))
    ollama = dataclasses.replace(_sized(plan.models[1], "daemon", gpu, 3 * GIB - MIB), launch=None)
    policy = Policy("concurrent_limited", 3, GIB, ("kept", "daemon"))
    small = _sized(plan.models[3], "small", gpu, 5 * GIB)
    full = dataclasses.replace(plan, policy=policy, models=(kept, other, ollama, small))
    assert together(full, [kept, small]) == (("kept", "small"),)
    assert together(full, [kept, other]) == (("kept",),)


def test_the_option_decides_whether_it_is_written(make_plan: MakePlan) -> None:
    plan = make_plan()
    wanted = dataclasses.replace(plan, options=dataclasses.replace(plan.options, llama_swap=True))
    assert "llama-swap.yaml" not in [file.path for file in registry.emit(plan, [plan])]
    assert "llama-swap.yaml" in [file.path for file in registry.emit(wanted, [wanted])]


def test_what_it_cannot_carry_is_a_finding_once_for_all_profiles(make_plan: MakePlan) -> None:
    plan = make_plan()
    models = (dataclasses.replace(plan.models[2], aliases=("${PORT}",)), *plan.models[3:])
    bad = dataclasses.replace(plan, models=models)
    wanted = dataclasses.replace(bad, options=dataclasses.replace(plan.options, llama_swap=True))
    assert registry.check([bad]) == ()
    (finding,) = registry.check([wanted, dataclasses.replace(wanted, profile="large")])
    assert finding.code == "IW521"
    assert finding.primary is not None
    assert finding.primary.span == models[0].span


def test_a_model_that_its_server_knows_by_another_name_is_asked_by_that(make_plan: MakePlan) -> None:
    plan = make_plan()
    renamed = dataclasses.replace(plan.models[2], served_name="org/own-name")
    found = config(dataclasses.replace(plan, models=(*plan.models[:2], renamed, *plan.models[3:])))["models"]
    assert found[renamed.id]["useModelName"] == "org/own-name"
    assert all("useModelName" not in settings for name, settings in found.items() if name != renamed.id)


def test_a_role_that_nobody_here_answers_is_no_alias(make_plan: MakePlan) -> None:
    plan = make_plan()
    roles = tuple(dataclasses.replace(role, candidates=()) for role in plan.roles)
    assert "role:" not in str(config(dataclasses.replace(plan, roles=roles))["models"])
