"""Role tables: order, rejections, and what is said about empty roles and long requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageworks.diagnostics.model import Diagnostic
from imageworks.model.loaded import Loaded
from imageworks.model.lock import LockedModel
from imageworks.model.stack import Quantization
from imageworks.plan.contracts import reach
from imageworks.plan.ir import Plan, PlannedRole
from imageworks.plan.resolve import resolve
from imageworks.plan.roles import BITS

Read = Callable[..., Loaded]
Known = Callable[..., LockedModel]
One = Callable[..., Diagnostic]


def role(plan: Plan, name: str) -> PlannedRole:
    return next(item for item in plan.roles if item.name == name)


def order(plan: Plan, name: str) -> list[str]:
    return [item.model for item in role(plan, name).candidates]


def test_keywords_on_16_gb_go_to_florence_as_the_seeds_expect(shipped: Mapping[str, Plan]) -> None:
    best = role(shipped["constrained_16gb"], "keywords").candidates[0]
    assert (best.model, best.priority, best.vram_mib) == ("florence-2-large", 95, 3500)


def test_captions_on_16_gb_go_to_qwen3(shipped: Mapping[str, Plan]) -> None:
    best = role(shipped["constrained_16gb"], "caption").candidates[0]
    assert (best.model, best.priority, best.via) == ("qwen3-vl-8b-fp8", 85, "caption")
    assert best.why == "caption 85; fp8 is no. 2 of prefer_quantizations; 13.69 GiB"


def test_every_role_is_served_everywhere_but_where_it_may_be_missing(
    shipped: Mapping[str, Plan], shipped_loaded: Loaded
) -> None:
    for name, plan in shipped.items():
        for item in plan.roles:
            assert item.candidates or name in shipped_loaded.stack.roles[item.name].may_be_missing_on


def test_a_model_that_does_not_fit_is_rejected_with_its_sum(shipped: Mapping[str, Plan]) -> None:
    (rejected,) = role(shipped["constrained_16gb"], "reasoning").rejected
    assert rejected.model == "gpt-oss-20b"
    assert rejected.reason.startswith("15.9 GiB needed, 13.7 usable")


STACK = """
version: 1
profiles:
  card: {{match: {{gpus: 1, vram: ">=40GiB"}}, prefer_quantizations: [fp8, awq], selection_bias: {bias}}}
models:
{models}
"""


def model(name: str, quantization: str, priority: int = 50, roles: str = "") -> str:
    listed = roles or f"{{chat: {priority}}}"
    source = f"source: {{path: o/{name}}}, context: 1024"
    return f"  {name}: {{backend: vllm, {source}, quantization: {quantization}, roles: {listed}}}\n"


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        ("balanced", ["top", "f", "a", "m", "x", "z"]),
        ("vram_efficient", ["top", "f", "a", "x", "z", "m"]),
        ("quality", ["top", "f", "a", "m", "x", "z"]),
    ],
)
def test_priority_then_preference_then_bias_then_id(read: Read, known: Known, bias: str, expected: list[str]) -> None:
    models = (
        model("z", "q8_0") + model("x", "q8_0") + model("m", "bf16") + model("a", "awq") + model("f", "fp8")
        + model("top", "q2_k", 51)
    )  # fmt: skip
    sizes = {"z": known(3), "x": known(2), "m": known(9), "a": known(8), "f": known(9), "top": known(9)}
    plans, findings = resolve(read(STACK.format(bias=bias, models=models), **sizes))
    assert not findings
    assert order(plans[0], "chat") == expected


def test_every_quantization_has_its_bits() -> None:
    assert set(BITS) == set(Quantization.__args__)  # type: ignore[attr-defined]


FALLBACK = """
version: 1
profiles:
  card: {match: {gpus: 1, vram: ">=40GiB"}}
models:
  own: {backend: vllm, source: {path: o/own}, context: 4096, capabilities: [chat, vision], roles: {a: 10}}
  both: {backend: vllm, source: {path: o/both}, context: 4096, capabilities: [chat, vision], roles: {a: 5, b: 90}}
  next: {backend: vllm, source: {path: o/next}, context: 4096, capabilities: [chat, vision], roles: {b: 20}}
  last: {backend: vllm, source: {path: o/last}, context: 4096, capabilities: [chat, vision], roles: {c: 99}}
  blind: {backend: vllm, source: {path: o/blind}, context: 4096, capabilities: [chat], roles: {a: 80, c: 50}}
roles:
  a: {requires: [vision], fallback: [b], images: {max: 2, max_edge: 512px}, may_be_missing_on: [development]}
  b: {requires: [vision], fallback: [c], may_be_missing_on: [development]}
  c: {requires: [chat], may_be_missing_on: [development]}
"""


def test_fallbacks_follow_in_order_without_duplicates(read: Read, known: Known) -> None:
    loaded = read(FALLBACK, own=known(2), both=known(2), next=known(2), last=known(2), blind=known(2))
    plans, findings = resolve(loaded)
    assert not findings
    found = role(plans[0], "a")
    assert [(item.model, item.via) for item in found.candidates] == [
        ("own", "a"),
        ("both", "a"),
        ("next", "b"),
        ("last", "c"),
    ]
    assert [(item.model, item.reason) for item in found.rejected] == [("blind", "lacks capability vision")]


def test_a_model_takes_the_images_of_roles_that_fall_back_to_it(read: Read, known: Known) -> None:
    loaded = read(FALLBACK, own=known(2), both=known(2), next=known(2), last=known(2), blind=known(2))
    most = {item.id: item.images_max for item in resolve(loaded)[0][0].models}
    assert most == {"own": 2, "both": 2, "next": 2, "last": 2, "blind": 0}


EMPTY = """
version: 1
profiles:
  card: {match: {gpus: 1, vram: ">=12GiB"}}
models:
  big: {backend: vllm, source: {path: o/big}, context: 1024, roles: {chat: 50}}
roles:
  chat: {requires: [chat]}
"""


def test_an_empty_role_names_every_profile_and_every_failure(read: Read, known: Known, one: One) -> None:
    found = one(read(EMPTY, big=known(14)), "IW402")
    assert found.message == "role `chat` has no model on card and development"
    assert found.notes[0].startswith("card: big: 15.8 GiB needed, 11.0 usable")
    assert found.notes[1] == "development: big: needs a GPU, and development has none"
    assert "may_be_missing_on: [card, development]" in found.fixes[1].text
    assert found.primary is not None
    assert found.primary.span.line == 8


def test_the_sum_of_a_needed_model_is_shown_once_for_the_nearest_profile(read: Read, known: Known, one: One) -> None:
    text = EMPTY.replace("models:", '  tiny: {match: {gpus: 1, vram: ">=8GiB <12GiB"}}\nmodels:')
    found = one(read(text, big=known(14)), "IW410")
    assert found.message == "big does not fit card: 4.8 GiB short"
    rest = "no shorter context and no lower concurrency is enough: all but the KV cache is 15.50 GiB"
    assert found.notes == ("nor tiny", rest)
    (sums,) = found.sums
    assert (sums.needed[0].name, sums.needed[0].amount, sums.needed[0].why) == ("weights", 14 << 30, "lock: the files")
    assert [(term.name, term.span and term.span.line) for term in sums.available] == [("GPU", 4), ("headroom", 4)]


def test_a_role_may_be_missing_where_the_stack_says_so(
    read: Read, known: Known, codes: Callable[..., tuple[str, ...]]
) -> None:
    text = EMPTY.replace("requires: [chat]", "requires: [chat], may_be_missing_on: [card, development]")
    assert codes(read(text, big=known(14))) == ()


def test_a_built_in_role_that_nobody_names_may_stay_empty(
    read: Read, known: Known, codes: Callable[..., tuple[str, ...]]
) -> None:
    text = EMPTY[: EMPTY.index("roles:\n")]
    assert codes(read(text, big=known(14))) == ()


LONG = """
version: 1
profiles:
  card: {match: {gpus: 1, vram: ">=40GiB"}}
models:
  pix: {backend: vllm, source: {path: o/pix}, context: 8192, capabilities: [chat, vision], roles: {vision_general: 50}}
"""
PIXTRAL = {"family": "pixtral", "layers": 40, "kv_heads": 8, "head_dim": 128}


def test_two_images_of_pixtral_do_not_fit_8192_tokens(read: Read, known: Known, one: One) -> None:
    found = one(read(LONG, pix=known(8, PIXTRAL)), "IW413")
    assert found.message == "one request of vision_general can exceed the context of pix"
    assert found.notes == ()
    (sums,) = found.sums
    assert [(term.name, term.amount) for term in sums.needed] == [
        ("images", 8320),
        ("answer", 1024),
        ("prompt", 512),
        ("reserve", 64),
    ]
    assert [(term.name, term.amount) for term in sums.available] == [("context", 8192)]
    assert sums.excess == 9920 - 8192
    assert found.fixes[0].text == "context: 9984 or more in pix"


def test_the_proof_holds_at_the_proposed_context(
    read: Read, known: Known, codes: Callable[..., tuple[str, ...]]
) -> None:
    assert codes(read(LONG.replace("8192", "9984"), pix=known(8, PIXTRAL))) == ()
    assert codes(read(LONG.replace("8192", "9919"), pix=known(8, PIXTRAL))) == ("IW413",)


def test_a_fallback_that_cannot_hold_the_request_is_no_candidate(read: Read, known: Known) -> None:
    text = (
        LONG.replace("vision_general", "small").replace("8192", "1024")
        + """
roles:
  large: {requires: [vision], images: {max: 4, max_edge: 1024px}, fallback: [small], may_be_missing_on: [card, development]}
  small: {requires: [vision], images: {max: 1, max_edge: 128px}, max_tokens: 64, may_be_missing_on: [development]}
"""
    )
    plans, findings = resolve(read(text, pix=known(8, PIXTRAL)))
    assert not findings
    assert order(plans[0], "large") == []
    assert order(plans[0], "small") == ["pix"]


def test_an_unknown_family_is_not_judged(read: Read, known: Known, codes: Callable[..., tuple[str, ...]]) -> None:
    assert codes(read(LONG, pix=known(8, PIXTRAL | {"family": "new_vl"}))) == ()


@settings(max_examples=40, deadline=None)
@given(
    priorities=st.lists(st.integers(0, 100), min_size=1, max_size=5),
    kinds=st.lists(st.sampled_from(sorted(BITS)), min_size=5, max_size=5),
    bias=st.sampled_from(["balanced", "quality", "vram_efficient"]),
)
def test_priority_is_never_overridden(
    read: Read, known: Known, priorities: list[int], kinds: list[str], bias: str
) -> None:
    names = [f"m{index}" for index in range(len(priorities))]
    text = "".join(model(name, kind, priority) for name, kind, priority in zip(names, kinds, priorities, strict=False))
    loaded = read(STACK.format(bias=bias, models=text), **{name: known(2) for name in names})
    found = [item.priority for item in role(resolve(loaded)[0][0], "chat").candidates]
    assert found == sorted(priorities, reverse=True)


def test_a_model_without_eyes_takes_no_images(read: Read) -> None:
    role = "roles: {look: {requires: [chat], images: {max: 2}}}\n"
    blind = (
        "models: {m: {backend: llamacpp, source: {path: m.gguf}, vram: {weights: 1GiB, kv: 1GiB}, roles: {look: 5}}}\n"
    )
    found = {item.code: item for item in resolve(read("version: 1\n" + role + blind))[1]}
    assert any("takes no images" in f"{item.message} {item.primary} {item.notes}" for item in found.values())


def test_a_role_that_two_ways_lead_to_is_reached_once(read: Read) -> None:
    stack = read(
        "version: 1\nmodels: {}\nroles: {a: {requires: [chat], fallback: [b, c]}, b: {requires: [chat], fallback: [d]}, c: {requires: [chat], fallback: [d]}, d: {requires: [chat]}}\n"
    ).stack
    assert reach(stack, "a") == ("a", "b", "d", "c")
    assert reach(stack, "nobody") == ()
