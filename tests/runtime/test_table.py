"""Names, role tables and the reading of routes.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.contract import ContractError, to_json
from imageworks.runtime.errors import ApiError
from imageworks.runtime.selection import select_by_role
from imageworks.runtime.table import close_names, decode, resolve, variant_of

Make = Callable[..., Any]


def test_what_the_compiler_writes_is_what_the_proxy_reads(route: Make, role: Make, table: Make) -> None:
    made = table(route("a", gpu_mib={"0": 5}, sampling={"temperature": 0.2, "top_k": 3}), roles={"chat": role("a")})
    assert decode(to_json(made).encode()) == made


def test_keys_that_later_versions_add_are_no_error(route: Make, table: Make) -> None:
    text = to_json(table(route("a"))).replace('"stack":', '"new_key": {"x": 1}, "stack":')
    assert decode(text.encode()).routes["a"].id == "a"


@pytest.mark.parametrize(
    "change", [('"queue": 16', '"queue": "16"'), ('"aliases": []', '"aliases": null'), ('"context": 2048,', "")]
)
def test_a_wrong_type_is_refused_and_never_guessed(route: Make, table: Make, change: tuple[str, str]) -> None:
    text = to_json(table(route("a")))
    assert change[0] in text
    with pytest.raises(ContractError, match="cannot be read"):
        decode(text.replace(*change).encode())


def test_an_id_wins_over_another_models_alias(route: Make, table: Make) -> None:
    made = table(route("b", aliases=("a",)), route("a"))
    assert resolve(made, "a").routes[0].id == "a"


@given(st.text(max_size=40))
def test_any_name_is_resolved_or_refused_with_404(name: str) -> None:
    from imageworks.contract import Policy, ProxySettings, RouteTable  # noqa: PLC0415 - hypothesis takes no function fixtures

    made = RouteTable(
        "s", "p", "h", "b", ProxySettings("h", 1, 1, 1, 1.0, 1.0), Policy("x", 1, 1, ()), (), {}, {}, {"p": {}}
    )
    with pytest.raises(ApiError) as caught:
        resolve(made, name)
    assert caught.value.status == 404


def test_close_names_are_offered_and_else_what_exists() -> None:
    assert close_names("captoin", ["caption", "chat"]) == "did you mean `caption`?"
    assert close_names("zzz", ["caption", "chat"]) == "there is: caption, chat"
    assert close_names("zzz", []) == "there is none"


def test_a_role_that_nobody_serves_here_says_why(role: Make, table: Make) -> None:
    made = table(roles={"caption": role(rejected={"eye": "needs 8 GiB"})})
    with pytest.raises(ApiError, match="No model found for role: caption") as caught:
        resolve(made, "role:caption")
    assert caught.value.hint == "eye: needs 8 GiB"


class TestSelection:
    def test_another_profiles_table_can_be_asked(self, role: Make, table: Make) -> None:
        made = table(roles={"chat": role("a")})
        made.roles["big_one"] = {"chat": role("z")}
        assert select_by_role(made, "chat", profile="big_one")["model"] == "z"
        with pytest.raises(ApiError, match="No profile: big_on") as caught:
            select_by_role(made, "chat", profile="big_on")
        assert caught.value.hint == "did you mean `big_one`?"

    def test_the_answer_has_the_reference_systems_shape(self, role: Make, table: Make) -> None:
        chosen = select_by_role(table(roles={"chat": role("a", "b")}), "chat", top_n=1)
        assert {"model", "role", "priority", "vram_estimate_mb", "profile", "models"} <= chosen.keys()
        assert [row["model"] for row in chosen["models"]] == ["a"]

    def test_a_loaded_model_wins_ties_only(self, role: Make, table: Make) -> None:
        a, b, c = role("a", "b", "c").candidates
        tied = role("a").__class__(
            **{
                **{name: getattr(role("a"), name) for name in role("a").__slots__},
                "candidates": (a, b, c.__class__(c.model, b.priority, c.via, c.vram_mib, c.quantization, c.why)),
            }
        )
        made = table(roles={"chat": tied})
        order = [row["model"] for row in select_by_role(made, "chat", loaded=("c",))["models"]]
        assert order == ["a", "c", "b"]

    def test_all_excluded_is_a_404(self, role: Make, table: Make) -> None:
        with pytest.raises(ApiError, match="No model found for role: chat"):
            select_by_role(table(roles={"chat": role("a")}), "chat", exclude=("a",))


def test_a_variant_is_asked_for_behind_an_id_or_an_alias(route: Make, table: Make) -> None:
    made = table(route("a", aliases=("x",), variants={"high": {"seed": 1}}), route("b"))
    assert resolve(made, "a:high").routes[0].id == "a"
    assert resolve(made, "x:high").routes[0].id == "a"
    with pytest.raises(ApiError) as caught:
        resolve(made, "a:hihg")
    assert (caught.value.status, caught.value.hint) == (404, "did you mean `a:high`?")
    assert variant_of(resolve(made, "x:high").routes[0], "x:high") == {"seed": 1}
    assert variant_of(made.routes["a"], "role:high") is None
