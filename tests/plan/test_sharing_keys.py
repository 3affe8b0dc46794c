"""sleep, coexist, placement, template, params, variants, urgency and leases: what each changes in what is emitted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from imageworks.model.load import load
from imageworks.model.loaded import Loaded
from imageworks.model.vllm_table import table as vllm_table
from imageworks.plan.ir import Plan
from imageworks.plan.resolve import resolve
from imageworks.source.files import MemoryFiles
from imageworks.targets import routes

Read = Callable[..., Loaded]
HEAD = """
version: 1
profiles:
  two:
    match: {gpus: 2, vram: ">=23GiB <24GiB", compute: ">=8.0"}
    headroom: 1GiB
    host_memory: 8GiB
    max_concurrent_models: 3
    strategy: concurrent_limited
  sliced:
    match: {devices: [{vram: ">=60GiB <61GiB"}, {mig: 3g.40gb}, {mig: 1g.10gb}]}
    max_concurrent_models: 3
    strategy: concurrent_limited
models:
"""
A = "  a: {backend: vllm, source: {path: org/a}, context: 4096, vram: {weights: 4GiB, kv: 2GiB}%s}\n"
B = "  b: {backend: vllm, source: {path: org/b}, context: 4096, vram: {weights: 6GiB, kv: 2GiB}%s}\n"
C = "  c: {backend: llamacpp, source: {path: c.gguf}, context: 4096, vram: {weights: 1GiB, kv: 1GiB}%s}\n"


@pytest.fixture
def planned(read: Read) -> Callable[..., Plan]:
    """`planned(models, more="", profile="two")`."""

    def make(models: str, more: str = "", profile: str = "two") -> Plan:
        plans, findings = resolve(read(HEAD + models + more))
        assert plans, findings
        return next(plan for plan in plans if plan.profile == profile)

    return make


def words(plan: Plan, model: str) -> list[str]:
    found = plan.model(model)
    assert found is not None
    assert found.launch is not None
    return [f"{flag.name}={flag.value}" if flag.value else flag.name for flag in found.launch.flags]


def route(plan: Plan, model: str) -> dict[str, Any]:
    (file,) = routes.emit(plan, (plan,))
    found: dict[str, Any] = json.loads(file.text)["routes"][model]
    return found


def table(plan: Plan) -> dict[str, Any]:
    (file,) = routes.emit(plan, (plan,))
    found: dict[str, Any] = json.loads(file.text)
    return found


@pytest.mark.parametrize(("level", "host"), [("level1", 4096), ("level2", 0)])
def test_a_sleeper_is_started_for_it_and_leaves_a_rest(planned: Callable[..., Plan], level: str, host: int) -> None:
    plan = planned(A % f", sleep: {level}")
    model = plan.model("a")
    assert model is not None
    assert model.launch is not None
    assert model.launch.env["VLLM_SERVER_DEV_MODE"] == "1"
    assert "--enable-sleep-mode" in words(plan, "a")
    found = route(plan, "a")
    assert (found["sleep"], found["asleep_mib"], found.get("asleep_host_mib", 0)) == (level, {"0": 1127}, host)


def test_a_model_that_does_not_sleep_opens_nothing(planned: Callable[..., Plan]) -> None:
    plan = planned(A % "")
    model = plan.model("a")
    assert model is not None
    assert model.launch is not None
    assert "VLLM_SERVER_DEV_MODE" not in model.launch.env
    assert "--enable-sleep-mode" not in words(plan, "a")
    assert "sleep" not in route(plan, "a")


def test_all_that_sleep_at_level_1_fit_the_host_memory(read: Read) -> None:
    _, findings = resolve(read(HEAD + A % ", sleep: level1" + B % ", sleep: level1"))
    told = {(item.code, item.message, item.primary.text if item.primary else "") for item in findings if item.is_error}
    assert told == {
        (
            "IW412",
            f"sleeping models do not fit the host memory of {name}",
            f"10.0 GiB together, {room} usable",
        )
        for name, room in (("two", "8.0"), ("sliced", "4.0"))
    }
    sums = [item.sums[0] for item in findings if item.code == "IW412"]
    assert [[term.name for term in one.needed] for one in sums] == [["a", "b"]] * 2
    assert resolve(read(HEAD + A % ", sleep: level2" + B % ", sleep: level1"))[0] == ()  # 6 GiB > the 4 of `sliced`


def test_what_is_kept_apart_is_no_resident_set_in_either_direction(planned: Callable[..., Plan]) -> None:
    plan = planned(A % ", coexist: {never: [b], because: noise}" + B % "" + C % "")
    sets = {item.models for item in plan.residents.sets}
    assert sets == {("a", "c"), ("b", "c")}
    assert ("a is never loaded beside b: coexist.never") in {item.reason for item in plan.residents.refused}
    assert (route(plan, "a")["never_with"], route(plan, "b")["never_with"]) == (["b"], ["a"])
    together = planned(A % "" + B % "" + C % "")
    assert {item.models for item in together.residents.sets} == {("a", "b", "c")}


def test_a_group_that_is_kept_apart_means_its_members(planned: Callable[..., Plan]) -> None:
    group = "groups: {others: {models: [b, c], profiles: [two]}}\n"
    plan = planned(A % ", coexist: {never: [others]}" + B % "" + C % "", group)
    assert route(plan, "a")["never_with"] == ["b", "c"]


def test_kept_loaded_and_kept_apart_is_a_contradiction(read: Read) -> None:
    _, findings = resolve(read(HEAD + A % ", keep: pinned, coexist: {never: [b]}" + B % ", keep: pinned"))
    errors = [item for item in findings if item.is_error]
    assert {item.code for item in errors} == {"IW418"}
    assert errors[0].primary is not None
    assert errors[0].primary.text == "a is never loaded beside b: coexist.never"


def test_an_unknown_name_kept_apart_is_a_finding() -> None:
    outcome = load("stack.yaml", MemoryFiles({"stack.yaml": HEAD + A % ", coexist: {never: [bb]}" + B % ""}), "studio")
    assert [(item.code, item.message) for item in outcome.diagnostics] == [
        ("IW302", "kept apart from an unknown model")
    ]


def test_placement_says_over_how_many_gpus(planned: Callable[..., Plan]) -> None:
    plan = planned(A % ", placement: {gpus: 2}")
    model = plan.model("a")
    assert model is not None
    assert (model.placement.slots, model.placement.why) == ((0, 1), "placement: split over 2 GPUs")
    assert "--tensor-parallel-size=2" in words(plan, "a")


def test_placement_on_fewer_gpus_takes_the_emptiest(planned: Callable[..., Plan]) -> None:
    big = B % ""
    plan = planned(big + A % ", placement: {gpus: 1}")
    spots = {model.id: model.placement.slots for model in plan.models}
    assert spots == {"b": (0,), "a": (1,)}


def test_more_gpus_than_there_are_leave_it_out(planned: Callable[..., Plan]) -> None:
    (left_out,) = planned(A % ", placement: {gpus: 3}").unplaced
    assert (left_out.code, left_out.reason) == ("IW405", "placement: needs 3 GPUs, and two has 2")


def test_placement_on_a_slice_of_a_profile(planned: Callable[..., Plan]) -> None:
    plan = planned(C % ", placement: {mig: 3g.40gb}" + A % "", profile="sliced")
    spots = {model.id: model.placement.slots for model in plan.models}
    assert spots == {"a": (0,), "c": (1,)}
    (left_out,) = planned(A % ", placement: {mig: 7g.80gb}", profile="sliced").unplaced
    assert left_out.reason == "placement: needs a slice 7g.80gb, and sliced has none"


def test_a_template_of_ones_own_is_passed_on_and_hashed() -> None:
    text = HEAD + A % ", template: {path: t/a.jinja}" + C % ", template: {path: t/a.jinja}"
    plans = {}
    for content in ("one", "two"):
        outcome = load("stack.yaml", MemoryFiles({"stack.yaml": text, "t/a.jinja": content}), "studio")
        assert outcome.loaded is not None, outcome.diagnostics
        plans[content] = next(plan for plan in resolve(outcome.loaded)[0] if plan.profile == "two")
    plan = plans["one"]
    assert "--chat-template={stack}/t/a.jinja" in words(plan, "a")
    assert "--chat-template-file={stack}/t/a.jinja" in words(plan, "c")
    assert {"path": "{stack}/t/a.jinja", "hint": "put the chat template back, or: imageworks compile"} in route(
        plan, "a"
    )["needs"]
    assert plan.hash != plans["two"].hash


def test_a_template_that_is_not_there_is_a_finding() -> None:
    outcome = load("stack.yaml", MemoryFiles({"stack.yaml": HEAD + A % ", template: {path: t/a.jinja}"}), "studio")
    assert [(item.code, item.message) for item in outcome.diagnostics] == [
        ("IW308", "the chat template of a cannot be read")
    ]


def test_params_and_variants_reach_the_route(planned: Callable[..., Plan]) -> None:
    plan = planned(A % ", params: {strip: [logprobs], set: {seed: 7}}, variants: {high: {reasoning_effort: high}}")
    found = route(plan, "a")
    assert (found["strip"], found["set"]) == (["logprobs"], {"seed": 7})
    assert found["variants"] == {"high": {"reasoning_effort": "high"}}


@pytest.mark.parametrize(("written", "found"), [("", "keep"), (", tool_calls: normalise", "normalise")])
def test_what_becomes_of_calls_in_text_reaches_the_route(
    written: str, found: str, planned: Callable[..., Plan]
) -> None:
    assert route(planned(A % written), "a").get("tool_calls", "keep") == found


@pytest.mark.parametrize("name", ["model", "messages", "stream"])
def test_what_a_request_is_about_is_never_a_parameter(name: str) -> None:
    text = HEAD + A % f", params: {{strip: [{name}]}}"
    outcome = load("stack.yaml", MemoryFiles({"stack.yaml": text}), "studio")
    assert [(item.code, item.message) for item in outcome.diagnostics] == [
        ("IW213", f"`{name}` cannot be set or taken out")
    ]


def test_a_variant_is_a_request_name_of_its_own() -> None:
    text = HEAD + A % ", variants: {high: {seed: 1}}" + B % ', aliases: ["a:high"]'
    outcome = load("stack.yaml", MemoryFiles({"stack.yaml": text}), "studio")
    assert [item.code for item in outcome.diagnostics] == ["IW303"]


def test_urgency_of_a_role_reaches_its_table(planned: Callable[..., Plan]) -> None:
    more = "roles: {chat: {requires: [chat], urgency: interactive, may_be_missing_on: [development]}}\n"
    plan = planned(A % ", roles: {chat: 50}", more)
    assert table(plan)["roles"]["two"]["chat"]["urgency"] == 10
    assert "urgency" not in table(planned(A % ", roles: {chat: 50}"))["roles"]["two"]["chat"]


def test_leases_and_the_health_interval_reach_the_routes(planned: Callable[..., Plan]) -> None:
    more = "leases: {mode: observe, ttl: 90s, queue_wait: 1m, min_residency: 5s, max_overtakes: 3}\n"
    found = table(planned(A % "", more + "defaults: {health_check_interval: 7s}\n"))
    assert found["leases"] == {
        "max_overtakes": 3,
        "min_residency_s": 5.0,
        "mode": "observe",
        "queue_wait_s": 60.0,
        "ttl_s": 90.0,
    }
    assert found["policy"]["health_check_interval_s"] == 7.0


@pytest.mark.parametrize("key", ["sleep: level1", "template: {path: a.jinja}"])
def test_keys_of_other_engines_are_refused(key: str) -> None:
    text = f"{HEAD}  o: {{backend: ollama, source: {{ollama: x}}, {key}}}\n"
    outcome = load("stack.yaml", MemoryFiles({"stack.yaml": text, "a.jinja": ""}), "studio")
    assert [item.code for item in outcome.diagnostics] == ["IW201"]


def test_history_of_a_role_lies_over_that_of_the_proxy(planned: Callable[..., Plan]) -> None:
    more = """
proxy: {history: {vision: {keep_turns: 2, max_bytes: 1MiB}, reasoning: {keep_turns: 3}}}
roles:
  chat: {requires: [chat], may_be_missing_on: [development], history: {vision: {keep_turns: 5}}}
  free: {requires: [chat], may_be_missing_on: [development], history: none}
  plain: {requires: [chat], may_be_missing_on: [development]}
  mute: {requires: [chat], may_be_missing_on: [development], history: {reasoning: none}}
"""
    found = table(planned(A % ", roles: {chat: 50, free: 50, plain: 50, mute: 50}", more))
    vision, reasoning = {"keep_turns": 2, "max_bytes": 1 << 20}, {"keep_turns": 3}
    assert found["proxy"]["history"] == {"vision": vision, "reasoning": reasoning}
    rules = {name: role["history"] for name, role in found["roles"]["two"].items() if name in more}
    assert rules == {
        "chat": {"vision": vision | {"keep_turns": 5}, "reasoning": reasoning},
        "free": {"vision": None},
        "plain": {"vision": vision, "reasoning": reasoning},
        "mute": {"vision": vision},
    }


def test_history_none_switches_one_policy_off(planned: Callable[..., Plan]) -> None:
    assert table(planned(A % "", "proxy: {history: {vision: none}}\n"))["proxy"]["history"] == {"vision": None}
    assert "history" not in table(planned(A % ""))["proxy"]


def test_images_of_a_role_lie_over_those_of_the_proxy(planned: Callable[..., Plan]) -> None:
    more = """
proxy: {images: {max_bytes: 5MiB, jpeg_quality: 70, formats: [jpeg]}}
roles:
  vision_general: {requires: [chat], may_be_missing_on: [development], images: {max: 1, max_edge: 512px, jpeg_quality: 92, max_bytes: 1MiB}}
"""
    text = A.replace("%s", ", capabilities: [chat, vision], roles: {vision_general: 50}")
    found = table(planned(text, more))
    assert found["proxy"]["images"] == {"max_bytes": 5 << 20, "jpeg_quality": 70, "formats": ["jpeg"]}
    assert found["roles"]["two"]["vision_general"]["images"] == {
        "max_bytes": 1 << 20,
        "jpeg_quality": 92,
        "formats": ["jpeg"],
        "max_edge_px": 512,
    }


def test_completions_and_parameters_reach_the_proxy(planned: Callable[..., Plan]) -> None:
    more = "proxy: {limits: {completions_per_request: 9}, parameters: {allow: [grammar, chat_template_kwargs]}}\n"
    found = table(planned(A % "", more))["proxy"]
    assert (found["completions"], found["parameters"]) == (9, ["chat_template_kwargs", "grammar"])


@pytest.mark.parametrize(
    ("said", "found"),
    [("[b.example.org, a.example.org]", ["a.example.org", "b.example.org"]), ("all", None), ("[]", [])],
)
def test_hosts_of_images_reach_the_proxy(planned: Callable[..., Plan], said: str, found: list[str] | None) -> None:
    proxy = table(planned(A % "", f"proxy: {{images: {{remote: {said}}}}}\n"))["proxy"]
    assert proxy.get("remote_images", []) == found


@pytest.mark.parametrize("said", ["[https://a.example.org]", "[10.0.0.1]", "['*.example.org']", "[localhost]", "any"])
def test_what_is_no_host_name_is_refused_where_it_stands(said: str) -> None:
    text = HEAD + A % "" + f"proxy: {{images: {{remote: {said}}}}}\n"
    (finding,) = load("stack.yaml", MemoryFiles({"stack.yaml": text}), "studio").diagnostics
    assert finding.code == "IW213"
    assert finding.primary is not None


def test_the_tokens_of_an_image_are_those_of_the_largest_edge_it_may_get(read: Read, known: Any) -> None:
    text = HEAD + A.replace("4096", "8192") % ", capabilities: [chat, vision], roles: {caption: 1, judge: 1}"
    plans, findings = resolve(read(text, a=known(4)))
    assert plans, findings
    assert route(next(plan for plan in plans if plan.profile == "two"), "a")["image_tokens"] == (1536 // 32) ** 2


def test_keys_of_clients_reach_the_proxy_as_references(planned: Callable[..., Plan]) -> None:
    more = """
secrets: {STUDIO: {env: IMAGEWORKS_STUDIO}}
proxy:
  bind: 0.0.0.0:8100
  auth:
    keys:
      all: {key: {secret: STUDIO}}
      phone: {key: {secret: STUDIO}, may: {roles: [caption], admin: true}, rate: 2/s, tokens: 3M/day, concurrency: 2, expires: 2027-06-30}
      some: {key: {secret: STUDIO}, may: {models: [a]}, rate: 60/h}
"""
    everything, phone, some = table(planned(A % "", more))["proxy"]["keys"]
    secret = {"name": "STUDIO", "env": "IMAGEWORKS_STUDIO"}
    assert everything == {"name": "all", "secret": secret}
    assert phone == {
        "name": "phone",
        "secret": secret,
        "roles": ["caption"],
        "models": [],
        "admin": True,
        "rate_per_minute": 120.0,
        "tokens_per_day": 3_000_000,
        "concurrency": 2,
        "expires": "2027-06-30",
    }
    assert some == {"name": "some", "secret": secret, "models": ["a"], "rate_per_minute": 1.0}


def test_open_to_the_network_wants_a_key() -> None:
    outcome = load("stack.yaml", MemoryFiles({"stack.yaml": HEAD + A % "" + "proxy: {bind: 0.0.0.0:8100}\n"}), "studio")
    assert [item.code for item in outcome.diagnostics] == ["IW330"]


def test_a_key_for_what_is_not_there_is_a_finding() -> None:
    text = HEAD + A % "" + "proxy: {auth: {keys: {me: {key: {secret: NOPE}, may: {roles: [chta], models: [b]}}}}}\n"
    outcome = load("stack.yaml", MemoryFiles({"stack.yaml": text}), "studio")
    assert sorted(item.code for item in outcome.diagnostics) == ["IW302", "IW302", "IW305"]


def test_the_flags_that_these_keys_write_are_flags_of_the_pinned_vllm() -> None:
    known = vllm_table("0.32.0")
    assert known is not None
    assert {known.find(name) is not None for name in ("enable-sleep-mode", "chat-template")} == {True}
