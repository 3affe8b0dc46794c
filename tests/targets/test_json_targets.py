"""routes.json, prompts.json and plan.json."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest
from syrupy.assertion import SnapshotAssertion

from imageworks import contract
from imageworks.plan.ir import Plan
from imageworks.targets import plan_json, prompts, routes


def test_routes_are_these(make_plan: Callable[..., Plan], snapshot: SnapshotAssertion) -> None:
    plan = make_plan()
    (file,) = routes.emit(plan, (plan,))
    assert file.path == "routes.json"
    assert file.text == snapshot


def test_routes_hold_the_role_tables_of_all_profiles(make_plan: Callable[..., Plan]) -> None:
    plans = (make_plan("small"), make_plan("tiny", roles=()))
    table = routes.table(plans[0], plans)
    assert table.profile == "small"
    assert {profile: list(roles) for profile, roles in table.roles.items()} == {"small": ["caption"], "tiny": []}


def test_a_route_says_where_each_kind_of_model_answers(make_plan: Callable[..., Plan]) -> None:
    plan = make_plan()
    table = routes.table(plan, (plan,)).routes
    assert {name: (route.program, route.url) for name, route in table.items()} == {
        "gpt-remote": (None, "https://llm.example.org"),
        "pixtral": (None, "http://127.0.0.1:11434"),
        "qwen3_vl.8b": ("model-qwen3-vl-8b", "http://127.0.0.1:24001"),
        "smollm2-135m": ("model-smollm2-135m", "http://127.0.0.1:24002"),
    }
    assert table["qwen3_vl.8b"].gpu_mib == {"0": 12 * 1024}
    assert table["smollm2-135m"].host_mib == 94
    assert table["smollm2-135m"].needs[0].hint == "imageworks up"


def test_an_ipv6_host_stands_in_brackets(make_plan: Callable[..., Plan]) -> None:
    model = dataclasses.replace(make_plan().models[-1], host="::1")
    assert routes.url(model) == "http://[::1]:24002"
    with pytest.raises(ValueError, match="neither"):
        routes.url(dataclasses.replace(model, port=None))


def test_prompts_are_these(make_plan: Callable[..., Plan], snapshot: SnapshotAssertion) -> None:
    (file,) = prompts.emit(make_plan(), ())
    assert json.loads(file.text)["schema"] == contract.PROMPTS_SCHEMA
    assert file.text == snapshot


def test_the_plan_explains_itself(make_plan: Callable[..., Plan], snapshot: SnapshotAssertion) -> None:
    (file,) = plan_json.emit(make_plan(), ())
    assert file.text == snapshot


def test_the_plan_names_lines_and_sums(make_plan: Callable[..., Plan]) -> None:
    document = plan_json.document(make_plan())
    qwen = next(row for row in document["models"] if row["id"] == "qwen3_vl.8b")
    assert qwen["at"] == "stack.yaml:10"
    assert qwen["memory"]["total"] == 12 << 30
    flag = next(flag for flag in qwen["launch"]["flags"] if flag["name"] == "--max-model-len")
    assert (flag["why"], flag["at"]) == ("longest context that fits", "stack.yaml:12")
    assert document["unplaced"][0]["reason"] == "needs 15.9 GiB of 13.7"
    assert document["schema"] == plan_json.SCHEMA


def test_the_plan_does_not_change_with_the_bytes_of_the_sources(make_plan: Callable[..., Plan]) -> None:
    assert plan_json.document(make_plan()) == plan_json.document(make_plan(inputs={"other.yaml": "00"}))
