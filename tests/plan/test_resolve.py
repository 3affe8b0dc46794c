"""The whole pass: all nine profiles, layers of settings, and what the hash covers."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping

import pytest

from imageworks.model.loaded import Loaded
from imageworks.model.lock import LockedModel
from imageworks.model.prompts import PromptProfile
from imageworks.plan.bundle import bundle, sha256
from imageworks.plan.ir import Plan
from imageworks.plan.resolve import resolve

Read = Callable[..., Loaded]
Known = Callable[..., LockedModel]


def test_the_shipped_stack_resolves_on_all_nine_profiles_without_a_finding(shipped_loaded: Loaded) -> None:
    plans, findings = resolve(shipped_loaded)
    assert findings == ()
    assert [plan.profile for plan in plans] == sorted(shipped_loaded.stack.profiles)
    assert len(plans) == 9


def test_an_error_leaves_no_plan(read: Read) -> None:
    plans, findings = resolve(
        read(
            "version: 1\nproxy: {bind: 127.0.0.1:24001}\nmodels:\n  m: {backend: llamacpp, source: {path: m.gguf}, pin: {port: {value: 24001, because: x}}}\n"
        )
    )
    assert plans == ()
    assert any(item.is_error for item in findings)


STACK = """
version: 1
defaults: {{grace: 1m, start_timeout: 10s}}
profiles:
  card: {{match: {{gpus: 1, vram: ">=40GiB"}}{profile}}}
models:
  m: {{backend: vllm, source: {{path: o/m}}{model}}}
"""


def test_grace_and_start_timeout_model_then_profile_then_defaults(read: Read, known: Known) -> None:
    own = ", grace: 3m, start_timeout: 30s"
    hardware = ", grace: 2m, start_timeout: 20s"
    for profile, model, expected in (("", "", (60, 10)), (hardware, "", (120, 20)), (hardware, own, (180, 30))):
        plans, _ = resolve(read(STACK.format(profile=profile, model=model), m=known(2)))
        found = plans[0].models[0]
        assert (found.grace_s, found.start_timeout_s) == expected


def test_the_settings_of_proxy_roots_and_targets_arrive(read: Read) -> None:
    text = """
version: 1
name: my-studio
roots: {models: {env: PICTURES, default: weights}}
models: {}
proxy: {bind: 127.0.0.1:9000, limits: {body: 1MiB, queue: 7, queue_wait: 3s}}
targets: {systemd: {enabled: false, scope: system, prefix: /opt/x}, vllm_scripts: {enabled: false}}
"""
    plans, _ = resolve(read(text), out="build/out")
    plan = next(item for item in plans if item.profile == "development")
    assert plan.stack == "my-studio"
    proxy = plan.proxy
    assert (proxy.host, proxy.port, proxy.body_limit, proxy.queue, proxy.queue_wait_s) == (
        "127.0.0.1",
        9000,
        1 << 20,
        7,
        3.0,
    )
    assert proxy.launch.flags[4].value == "{stack}/build/out/development/routes.json"
    assert [(root.name, root.env, root.default) for root in plan.roots] == [
        ("models", "PICTURES", "weights"),
        ("state", "IMAGEWORKS_STATE", ".imageworks"),
    ]
    options = plan.options
    assert (options.supervisord, options.systemd, options.vllm_scripts) == (True, False, False)
    assert (options.systemd_scope, options.systemd_prefix) == ("system", "/opt/x")


@pytest.mark.parametrize(
    ("scope", "prefix"),
    [("", "/srv/imageworks"), ("scope: system", "/srv/imageworks"), ("scope: user", "%h/imageworks")],
)
def test_the_folder_of_the_units_follows_their_scope(read: Read, scope: str, prefix: str) -> None:
    plans, _ = resolve(read(f"version: 1\nmodels: {{}}\ntargets: {{systemd: {{{scope}}}}}\n"))
    assert {plan.options.systemd_prefix for plan in plans} == {prefix}


def test_stopping_gives_the_proxy_time_to_drain(shipped: Mapping[str, Plan]) -> None:
    assert all(plan.proxy.drain_s < plan.stop_wait_s for plan in shipped.values())


def test_residents_are_the_groups_where_all_stay_loaded(shipped: Mapping[str, Plan]) -> None:
    group = ("florence-2-large", "qwen2.5-vl-7b-q4", "qwen3-vl-8b-fp8", "siglip-large")
    assert {name: plan.policy.resident for name, plan in shipped.items() if plan.policy.resident} == {
        "generous_80gb": group,
        "generous_96gb": group,
    }


def test_the_hash_ignores_places_and_comments_and_the_order_of_the_file(read: Read, known: Known) -> None:
    text = STACK.format(profile="", model="")
    moved = "# a comment\n\n" + text.replace("version: 1\n", "") + "version: 1\n"
    first, second = (resolve(read(item, m=known(2)))[0][0] for item in (text, moved))
    assert first.models[0].span != second.models[0].span
    assert first.inputs != second.inputs
    assert first.hash == second.hash


def test_the_hash_covers_every_meaning(read: Read, known: Known) -> None:
    base = STACK.format(profile="", model="")
    changes = [
        "",
        ", context: 4096",
        ", concurrency: 3",
        ", roles: {chat: 5}",
        ", sampling: {seed: 1}",
        ", grace: 9m",
        ", keep: pinned",
    ]
    hashes = [resolve(read(STACK.format(profile="", model=item), m=known(2)))[0][0].hash for item in changes]
    hashes.append(resolve(read(base, m=known(3)))[0][0].hash)
    assert len(set(hashes)) == len(hashes)


def test_the_hash_ignores_where_the_files_are_written(read: Read) -> None:
    plan = resolve(read("version: 1\nmodels: {}\n"))[0][0]
    assert dataclasses.replace(plan, out="elsewhere").hash == plan.hash


def test_plans_do_not_depend_on_the_order_of_maps(shipped_loaded: Loaded) -> None:
    stack = shipped_loaded.stack
    names = list(stack.models)
    random.Random(7).shuffle(names)
    shuffled = stack.model_copy(update={"models": {name: stack.models[name] for name in names}})
    again, _ = resolve(dataclasses.replace(shipped_loaded, stack=shuffled))
    assert [plan.hash for plan in again] == [plan.hash for plan in resolve(shipped_loaded)[0]]


def test_prompts_are_addressed_by_their_content(shipped_loaded: Loaded) -> None:
    found = bundle(shipped_loaded)
    assert {(item.app, item.profile) for item in found.prompts} == set(shipped_loaded.prompt_profiles)
    assert [item.stage for item in found.bindings] == sorted(shipped_loaded.stack.prompts.bind)
    key = ("personal_tagger", "tagger_default")
    changed = shipped_loaded.prompt_profiles[key].model_copy(update={"user": "Otherwise."})
    other = bundle(
        dataclasses.replace(shipped_loaded, prompt_profiles={**shipped_loaded.prompt_profiles, key: changed})
    )
    assert other.hash != found.hash
    assert sum(a.hash != b.hash for a, b in zip(found.prompts, other.prompts, strict=True)) == 1


def test_the_layers_of_a_prompt_do_not_change_its_hash(shipped_loaded: Loaded) -> None:
    def with_layers(*layers: str) -> str:
        text = PromptProfile(version="1", user="Say what you see.", layers=layers)
        return bundle(dataclasses.replace(shipped_loaded, prompt_profiles={("a", "p"): text})).prompts[0].hash

    assert with_layers("base") == with_layers("base", "user")


def test_equal_texts_in_different_unicode_forms_have_one_hash() -> None:
    assert sha256({"b": 1, "a": "\u00e9"}) == sha256({"a": "e\u0301", "b": 1})
