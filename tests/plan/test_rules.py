"""Profiles and groups that ask for what cannot be."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.diagnostics.model import Applicability, Diagnostic, Severity
from imageworks.model.loaded import Loaded
from imageworks.model.lock import LockedModel
from imageworks.plan.resolve import resolve
from imageworks.plan.rules import smallest_drop

Read = Callable[..., Loaded]
Known = Callable[..., LockedModel]
One = Callable[..., Diagnostic]
Codes = Callable[..., tuple[str, ...]]


def profiles(*lines: str, models: str = "models: {}\n") -> str:
    return "version: 1\nprofiles:\n" + "".join(f"  {line}\n" for line in lines) + models


def test_overlapping_profiles_get_a_safe_fix(read: Read, one: One) -> None:
    text = profiles(
        'small: {match: {gpus: 1, vram: ">=14.9GiB <22.1GiB"}}', 'large: {match: {gpus: 1, vram: ">=20GiB <39GiB"}}'
    )
    found = one(read(text), "IW401")
    assert found.primary is not None
    assert found.primary.text == "overlaps from 20GiB to 22.1GiB"
    (fix,) = found.fixes
    assert fix.applicability is Applicability.SAFE
    (edit,) = fix.edits
    fixed = text[: edit.span.start] + edit.replacement + text[edit.span.end :]
    assert 'large: {match: {gpus: 1, vram: ">=22.1GiB <39GiB"}}' in fixed


@pytest.mark.parametrize(
    ("one_match", "other_match"),
    [
        ('gpus: 1, vram: ">=8GiB"', 'gpus: 2, vram: ">=8GiB"'),
        ('gpus: 1, vram: ">=8GiB <12GiB"', 'gpus: 1, vram: ">=12GiB"'),
        ('gpus: 1, vram: ">=8GiB", compute: "<8.0"', 'gpus: 1, vram: ">=8GiB", compute: ">=8.0"'),
    ],
)
def test_neighbours_do_not_overlap(read: Read, codes: Codes, one_match: str, other_match: str) -> None:
    assert "IW401" not in codes(read(profiles(f"a: {{match: {{{one_match}}}}}", f"b: {{match: {{{other_match}}}}}")))


@pytest.mark.parametrize("inner", ['">=10GiB <12GiB"', '">=10GiB <20GiB"'])
def test_a_range_inside_another_is_left_to_a_person(read: Read, one: One, inner: str) -> None:
    found = one(
        read(profiles('a: {match: {gpus: 1, vram: ">=8GiB <20GiB"}}', f"b: {{match: {{gpus: 1, vram: {inner}}}}}")),
        "IW401",
    )
    assert [fix.applicability for fix in found.fixes] == [Applicability.CHOOSE]


def test_one_at_a_time_cannot_be_several(read: Read, one: One) -> None:
    found = one(read(profiles('a: {match: {gpus: 1, vram: ">=8GiB"}, max_concurrent_models: 3}')), "IW403")
    assert found.primary is not None
    assert found.primary.span.line == 3


@pytest.mark.parametrize("rest", ["", ", strategy: tensor_parallel_or_distributed"])
def test_a_split_needs_two_gpus_and_the_strategy(read: Read, one: One, rest: str) -> None:
    text = profiles(f'a: {{match: {{gpus: 1, vram: ">=8GiB"}}, tensor_parallel_above: 10GiB{rest}}}')
    assert "never splits" in one(read(text), "IW404").message


@pytest.mark.parametrize("match", ["{gpus: 1}", '{gpus: 1, vram: ">=1GiB"}', '{gpus: 1, vram: "<9GiB"}'])
def test_gpu_memory_must_be_more_than_the_headroom(read: Read, one: One, match: str) -> None:
    assert one(read(profiles(f"a: {{match: {match}, headroom: 1GiB}}")), "IW407").is_error


def test_vllm_on_the_cpu_is_refused_once(read: Read, known: Known, one: One) -> None:
    text = "version: 1\nmodels:\n  m: {backend: vllm, source: {path: o/m}, placement: cpu}\n"
    assert "vllm needs a GPU" in str(one(read(text, m=known(1)), "IW405").primary)


CARD = 'card: {{match: {{gpus: 1, vram: ">=25GiB"}}, headroom: 1GiB, max_concurrent_models: {k}, strategy: {strategy}}}'


def trio(k: int, strategy: str, keep: str = "grace", groups: str = "") -> str:
    models = "models:\n" + "".join(
        f"  {name}: {{backend: vllm, source: {{path: o/{name}}}, context: 1024, keep: {keep if name == 'a' else 'grace'}}}\n"
        for name in ("a", "b", "c")
    )
    return profiles(CARD.format(k=k, strategy=strategy), models=models + groups)


GROUP = "groups:\n  g: {models: [a, b, c], profiles: [card]}\n"


def test_a_group_that_does_not_fit_says_the_sum_and_what_to_drop(read: Read, known: Known, one: One) -> None:
    found = one(read(trio(3, "concurrent_limited", groups=GROUP), a=known(8), b=known(9), c=known(5)), "IW411")
    assert found.primary is not None
    assert found.primary.text == "27.4 GiB together, 24.0 usable"
    assert found.notes == ("smallest set to drop: c",)
    (sums,) = found.sums
    assert [(term.name, f"{term.amount / 2**30:.2f}") for term in sums.needed] == [
        ("a", "9.78"),
        ("b", "10.78"),
        ("c", "6.78"),
    ]
    assert [(term.name, f"{term.amount / 2**30:.2f}") for term in sums.available] == [
        ("GPU", "25.00"),
        ("headroom", "-1.00"),
    ]
    assert all(term.span is not None for term in (*sums.needed, *sums.available))


def test_a_group_larger_than_the_profile_allows(read: Read, known: Known, one: One) -> None:
    found = one(read(trio(2, "concurrent_limited", groups=GROUP), a=known(1), b=known(1), c=known(1)), "IW411")
    assert found.notes == ("card loads at most 2 at once, the group counts 3",)
    (sums,) = found.sums
    assert ([term.name for term in sums.needed], sums.available[0].amount, sums.excess) == (["a", "b", "c"], 2, 1)


def test_a_group_with_a_model_that_is_left_out(read: Read, known: Known, one: One) -> None:
    found = one(read(trio(3, "concurrent_limited", groups=GROUP), a=known(30), b=known(1), c=known(1)), "IW411")
    assert found.notes[0].startswith("a is not placed here: 31.")


def test_a_group_counts_only_where_it_is_named(read: Read, known: Known, codes: Codes) -> None:
    elsewhere = GROUP.replace("[card]", "[development]")
    found = codes(read(trio(3, "concurrent_limited", groups=elsewhere), a=known(8), b=known(9), c=known(5)))
    assert found == ("IW411",)  # development has no GPU for any of them


def test_a_pinned_model_must_leave_room_for_the_others(read: Read, known: Known, one: One) -> None:
    lock = {"a": known(15), "b": known(10), "c": known(2)}
    found = one(read(trio(2, "concurrent_limited", "pinned"), **lock), "IW406")
    assert found.message == "b can never be loaded on card"
    assert found.primary is not None
    assert found.primary.text == "never evicted: a"


def test_a_pinned_model_on_a_one_at_a_time_profile_shuts_out_all_others(read: Read, known: Known, one: One) -> None:
    found = one(read(trio(1, "load_unload", "pinned"), a=known(1), b=known(1), c=known(1)), "IW406")
    assert found.message == "b and c can never be loaded on card"
    assert found.notes[0] == "b: at most 1 model at once, always a"


def test_a_pinned_model_that_fits_beside_is_resident(read: Read, known: Known, codes: Codes) -> None:
    assert codes(read(trio(2, "concurrent_limited", "pinned"), a=known(8), b=known(8), c=known(2))) == ()


def test_a_pinned_model_that_fits_nowhere_is_an_error(read: Read, known: Known, one: One) -> None:
    assert (
        "does not fit card"
        in one(read(trio(1, "load_unload", "pinned"), a=known(40), b=known(1), c=known(1)), "IW410").message
    )


def test_a_total_needs_a_reason_and_no_parts(read: Read, codes: Codes) -> None:
    text = "version: 1\nmodels:\n  m: {{backend: vllm, source: {{path: o/m}}, vram: {{{vram}}}}}\n"
    assert codes(read(text.format(vram="total: 2GiB"))) == ("IW422",)
    assert codes(read(text.format(vram="total: 2GiB, weights: 1GiB, because: seen"))) == ("IW422",)
    assert codes(read(text.format(vram="because: seen"))) == ("IW422", "IW421")
    assert codes(read(text.format(vram="total: 2GiB, because: seen"))) == ()


def test_a_context_beyond_the_weights_limit_is_an_error(read: Read, known: Known, one: One) -> None:
    net = {"family": "llama", "layers": 2, "kv_heads": 1, "head_dim": 64, "context_limit": 4096}
    text = "version: 1\nmodels:\n  m: {backend: llamacpp, source: {path: m.gguf}, context: 8192}\n"
    found = one(read(text, m=known(1, net)), "IW414")
    assert found.fixes[0].text == "context: 4096"


def test_two_quantizations_for_one_file_are_an_error(read: Read, known: Known, one: One) -> None:
    text = "version: 1\nmodels:\n  m: {backend: llamacpp, source: {path: m.gguf}, quantization: q4_1}\n"
    assert one(read(text, m=known(1, quantization="Q8_0")), "IW420").message == "m is Q8_0, not q4_1"


def test_missing_facts_say_how_to_learn_them(read: Read, known: Known, one: One) -> None:
    text = "version: 1\nmodels:\n  m: {backend: llamacpp, source: {path: m.gguf}}\n"
    nothing, size_only = one(read(text), "IW421"), one(read(text, m=known(2, None)), "IW421")
    assert nothing.severity is Severity.WARNING
    assert "the size of its weights" in nothing.notes[0]
    assert "its layers and KV heads; its weights are 2.00 GiB" in size_only.notes[0]
    assert "imageworks up" in nothing.fixes[0].text


@given(
    st.dictionaries(st.text("abcdefgh", min_size=1, max_size=2), st.integers(1, 100), min_size=1, max_size=7), st.data()
)
def test_the_smallest_drop_suffices_and_no_smaller_set_does(parts: dict[str, int], data: st.DataObject) -> None:
    excess = data.draw(st.integers(1, sum(parts.values())))
    dropped = smallest_drop(parts, excess)
    assert sum(parts[name] for name in dropped) >= excess
    assert sum(sorted(parts.values(), reverse=True)[: len(dropped) - 1]) < excess


def test_sums_are_made_in_whole_mib_as_the_runtime_counts(read: Read, codes: Codes) -> None:
    models = "".join(
        f'  {name}: {{backend: vllm, source: {{path: o/{name}}}, vram: {{total: 5120.5MiB, because: "x"}}}}\n'
        for name in "ab"
    )
    text = profiles(
        'card: {{match: {{gpus: 1, vram: ">={vram}"}}, headroom: 1024MiB, max_concurrent_models: 2, strategy: concurrent_limited}}',
        models=f"models:\n{models}groups:\n  g: {{models: [a, b], profiles: [card]}}\n".replace("{", "{{").replace(
            "}", "}}"
        ),
    )
    assert codes(read(text.format(vram="11265MiB"))) == ("IW411",)  # 10241 MiB hold 2 x 5120.5, but not 2 x 5121
    assert codes(read(text.format(vram="11266MiB"))) == ()


PINNED = """models:
  b: {backend: vllm, source: {path: o/b}, keep: pinned, vram: {weights: 5GiB, kv: 1GiB}, roles: {chat: 40}}
  c: {backend: vllm, source: {path: o/c}, vram: {weights: 5GiB, kv: 1GiB}, roles: {chat: 30}}
"""


def test_a_pin_does_not_count_on_built_in_machines_where_it_would_shut_others_out(read: Read) -> None:
    """Nobody should have to excuse a pin on machines that the stack never speaks of."""
    plans, found = resolve(read("version: 1\n" + PINNED))
    assert {item.severity for item in found} == {Severity.NOTE}
    by_profile = {plan.profile: plan for plan in plans}
    here, there = by_profile["constrained_16gb"], by_profile["balanced_24gb"]
    assert (here.policy.resident, there.policy.resident) == ((), ("b",))
    assert [plan.models[0].pinned for plan in (here, there)] == [False, True]
    assert "balanced_24gb" not in "".join(item.message for item in found)


def test_a_pin_counts_on_every_machine_that_the_stack_names(read: Read) -> None:
    _, found = resolve(read("version: 1\nprofiles: {constrained_16gb: {headroom: 1GiB}}\n" + PINNED))
    assert [(item.code, item.severity.value) for item in found if "constrained" in item.message] == [("IW406", "error")]


def test_of_very_many_models_the_largest_are_dropped_first() -> None:
    parts = {f"m{number:02}": number for number in range(1, 41)}
    assert smallest_drop(parts, 79) == ("m40", "m39")
    assert smallest_drop(parts, 80) == ("m40", "m39", "m38")


def test_another_profile_for_no_gpu_overlaps_the_built_in_one_on_every_such_machine(read: Read, one: One) -> None:
    found = one(read(profiles("a: {match: {gpus: 0}}")), "IW401")
    assert found.primary is not None
    assert found.primary.text == "overlaps every machine without a GPU"


def test_a_group_on_the_cpu_is_summed_against_the_hosts_memory(read: Read, one: One) -> None:
    models = "models:\n" + "".join(
        f"  {name}: {{backend: llamacpp, source: {{path: {name}.gguf}}, vram: {{weights: 3GiB, kv: 1GiB}}}}\n"
        for name in "ab"
    )
    text = profiles(
        "host: {match: {gpus: 0}, host_memory: 6GiB, max_concurrent_models: 2, strategy: concurrent_limited}",
        models=models + "groups:\n  g: {models: [a, b], profiles: [host]}\n",
    )
    found = one(read(text), "IW411")
    (sums,) = found.sums
    assert [(term.name, term.amount >> 30) for term in sums.available] == [("host memory", 6)]
    assert found.primary is not None
    assert found.primary.text == "8.5 GiB together, 6.0 usable"
