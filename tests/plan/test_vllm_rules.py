"""What a stack says to vLLM is compared with what that vLLM takes, before anything starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from imageworks.diagnostics.human import full
from imageworks.diagnostics.model import Applicability, Diagnostic, Severity
from imageworks.model.load import load
from imageworks.model.loaded import Loaded
from imageworks.model.lock import Architecture, LockedModel
from imageworks.model.vllm_table import table
from imageworks.plan.resolve import resolve
from imageworks.source.files import MemoryFiles

Read = Callable[..., Loaded]
Known = Callable[..., LockedModel]
HEAD = """\
version: 1
profiles:
  card: {match: {gpus: 1, vram: ">=16GiB"}, headroom: 1GiB}
models:
  m:
    backend: vllm
    source: {path: o/m}
    context: 1024
"""


def stack(*flags: str, backend: str = "") -> str:
    return HEAD + backend + ("    vllm:\n" + "".join(f"      {flag}\n" for flag in flags) if flags else "")


@pytest.fixture
def findings(read: Read, known: Known) -> Callable[..., tuple[Diagnostic, ...]]:
    """`findings(text)`: everything that the plan says of it, but for what no role needs."""

    def find(text: str, family: str = "qwen3", classes: tuple[str, ...] | None = None) -> tuple[Diagnostic, ...]:
        net = Architecture(family=family, layers=36, kv_heads=8, head_dim=128, classes=classes)
        found = resolve(read(text, m=known(6, net)))[1]
        return tuple(item for item in found if item.code.startswith("IW5"))

    return find


Findings = Callable[..., tuple[Diagnostic, ...]]


def place(found: Diagnostic) -> tuple[int, int]:
    assert found.primary is not None
    return found.primary.span.line, found.primary.span.column


def repaired(text: str, found: Diagnostic) -> str:
    """`text` with the safe fix applied."""
    (fix,) = found.fixes
    assert fix.applicability is Applicability.SAFE
    for edit in sorted(fix.edits, key=lambda one: -one.span.start):
        text = text[: edit.span.start] + edit.replacement + text[edit.span.end :]
    return text


def test_three_wrong_flags_are_three_findings_with_place_and_suggestion(findings: Findings) -> None:
    text = stack("tool-cal-parser: hermes", "kv-cache-dtype: fp9", "enforce-eager: on")
    found = findings(text)
    assert [item.code for item in found] == ["IW501"] * 3
    assert [place(item) for item in found] == [(10, 7), (11, 23), (12, 22)]
    assert [item.fixes[0].edits[0].replacement for item in found] == ["tool-call-parser", "fp8", "true"]


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        ("tool-cal-parser: hermes", "tool-call-parser: hermes"),
        ("tool_call_parser: hermes", "tool-call-parser: hermes"),
        ('"--tool-call-parser": hermes', "tool-call-parser: hermes"),
        ("tool-call-parser: hermez", "tool-call-parser: hermes"),
        ("q: fp8", "quantization: fp8"),
        ("enforce-eager: yes", "enforce-eager: true"),
        ("no-enforce-eager: true", "enforce-eager: false"),
        ("no_enforce_eager: false", "enforce-eager: true"),
        ("runner: poolin", "runner: pooling"),
        ("reasoning-parser: quen3", "reasoning-parser: qwen3"),
    ],
)
def test_a_safe_fix_leaves_a_flag_that_works(findings: Findings, flag: str, line: str) -> None:
    text = stack(flag)
    (found,) = findings(text)
    assert (found.code, found.severity) == ("IW501", Severity.ERROR)
    after = repaired(text, found)
    assert after == stack(line)
    assert findings(after) == ()


def test_a_bare_flag_with_a_value_is_told_at_the_value(findings: Findings) -> None:
    (found,) = findings(stack("enable-prefix-caching: hermes"))
    assert found.message == "`enable-prefix-caching` does not take `hermes`"
    assert place(found) == (10, 30)


def test_an_unknown_flag_that_resembles_none_is_told_without_a_guess(findings: Findings) -> None:
    (found,) = findings(stack("elephant: true"))
    assert found.primary is not None
    assert found.primary.text == "vLLM 0.32.0 has no flag of this name"
    assert [fix.text for fix in found.fixes] == ["remove it"]


@pytest.mark.parametrize(
    "names",
    [("tool-server", "tool_server"), ("tool_server", "tool-server"), ("quantization", "q"), ("q", "--quantization")],
)
def test_two_names_of_one_flag_are_one_finding_at_the_second(findings: Findings, names: tuple[str, str]) -> None:
    (found,) = findings(stack(f"{names[0]}: fp8", f"{names[1]}: fp8"))
    assert found.message == f"`{names[0]}` and `{names[1]}` are one flag"
    assert place(found)[0] == 11
    assert [label.span.line for label in found.secondary] == [10]


@pytest.mark.parametrize(
    "flag", ["tp: 2", "device-memory-utilization: 0.9", "max_model_len: 9", "--port: 1", "model: x", "pp: 2", "dp: 2"]
)
def test_a_derived_flag_is_refused_under_every_name(findings: Findings, flag: str) -> None:
    (found,) = findings(stack(flag))
    assert found.code == "IW502"
    assert not any(edit for fix in found.fixes for edit in fix.edits)


@pytest.mark.parametrize("flag", ["config: x.yaml", "uds: sock", "headless: true", "grpc: true", "ssl-keyfile: x"])
def test_a_flag_that_would_cut_the_model_off_is_refused(findings: Findings, flag: str) -> None:
    (found,) = findings(stack(flag))
    assert found.message == f"`{flag.partition(':')[0]}` cannot be used here"


def test_a_part_of_a_flag_is_to_be_a_map(findings: Findings) -> None:
    (found,) = findings(stack("compilation-config.mode: 3"))
    assert [fix.text for fix in found.fixes] == ["compilation-config: {mode: …}"]
    assert findings(stack("compilation-config: {mode: 3}")) == ()


@pytest.mark.parametrize(
    ("alone", "wanted"),
    [
        ("enable-auto-tool-choice: true", "tool-call-parser: hermes"),
        ("enable-log-outputs: true", "enable-log-requests: true"),
    ],
)
def test_a_flag_that_needs_another_says_so(findings: Findings, alone: str, wanted: str) -> None:
    (found,) = findings(stack(alone))
    assert found.message == f"`{alone.partition(':')[0]}` needs `{wanted.partition(':')[0]}`"
    assert findings(stack(alone, wanted)) == ()
    assert findings(stack(alone.replace("true", "false"))) == ()


def test_a_misspelt_companion_counts_as_the_one_that_was_meant(findings: Findings) -> None:
    (found,) = findings(stack("enable-auto-tool-choice: true", "tool_call_parser: hermes"))
    assert found.message == "the flag `tool_call_parser` is spelt `tool-call-parser` here"


def test_flags_that_exclude_each_other_are_told_with_both_places(findings: Findings) -> None:
    (found,) = findings(stack("disable-log-stats: true", "enable-per-request-metrics: true"))
    assert (place(found)[0], [label.span.line for label in found.secondary]) == (11, [10])
    assert findings(stack("disable-log-stats: true")) == ()


def test_a_value_below_the_least_is_refused(findings: Findings) -> None:
    (found,) = findings(stack("sse-keep-alive-interval: -1"))
    assert found.primary is not None
    assert found.primary.text == "0 is the smallest"
    assert findings(stack("sse-keep-alive-interval: 0")) == ()


def test_a_model_that_calls_tools_needs_a_parser_for_them(findings: Findings) -> None:
    tools = "    capabilities: [chat, tools]\n"
    for flags in ((), ("enable-auto-tool-choice: false",), ("tool-call-parser: hermes",)):
        (found,) = findings(stack(*flags, backend=tools))
        assert (found.code, found.severity, place(found)) == ("IW505", Severity.WARNING, (9, 19))
    for spelt in ("enable-auto-tool-choice", "enable_auto_tool_choice"):
        codes = {item.code for item in findings(stack(f"{spelt}: true", "tool-call-parser: hermes", backend=tools))}
        assert "IW505" not in codes
    assert findings(stack(backend="    capabilities: [chat]\n")) == ()


def test_a_parser_of_a_plugin_is_believed(findings: Findings) -> None:
    assert findings(stack("tool-call-parser: mine", "tool-parser-plugin: mine.py")) == ()
    (alone,) = findings(stack("tool-call-parser: mine"))
    assert alone.severity is Severity.ERROR


def test_a_word_that_vllm_may_learn_elsewhere_is_a_warning(findings: Findings) -> None:
    (found,) = findings(stack("quantization: elephant"))
    assert found.severity is Severity.WARNING


def test_a_deprecated_flag_is_a_warning_that_says_why(findings: Findings) -> None:
    (found,) = findings(stack("disable-cascade-attn: true"))
    assert found.severity is Severity.WARNING
    assert "removed in v0.33.0" in found.notes[0]


@pytest.mark.parametrize("version", ["0.30.0", "0.320", '"1.0"'])
def test_a_version_without_a_table_names_those_that_have_one(findings: Findings, version: str) -> None:
    text = stack("elephant: true") + f"backends:\n  vllm: {{version: {version}}}\n"
    (found,) = findings(text)
    assert found.code == "IW504"
    assert found.primary is not None
    assert found.primary.text == "known: 0.31.0 0.32.0"
    assert place(found) == (12, 19)
    assert findings(stack() + 'backends:\n  vllm: {version: "0.32.0"}\n') == ()


@pytest.mark.parametrize(
    ("flag", "message", "fix"),
    [
        ("swap-space: 4", "vLLM flag `swap-space` was removed in 0.18", "remove it"),
        ("--swap_space: 4", "vLLM flag `--swap_space` was removed in 0.18", "remove it"),
        ("no-enable-lora-bias: true", "vLLM flag `no-enable-lora-bias` was removed in 0.11", "remove it"),
        (
            "guided-decoding-backend: auto",
            "vLLM flag `guided-decoding-backend` was removed in 0.12",
            "structured-outputs-config: {backend: …}",
        ),
    ],
)
def test_a_flag_of_an_older_vllm_is_told_with_what_stands_in(
    findings: Findings, flag: str, message: str, fix: str
) -> None:
    (found,) = findings(stack(f'"{flag.partition(":")[0]}":{flag.partition(":")[2]}'))
    assert (found.code, found.message, found.fixes[0].text) == ("IW501", message, fix)
    assert place(found) == (10, 7)


def test_a_flag_newer_than_the_pinned_version_names_the_version_that_brought_it(findings: Findings) -> None:
    older = "backends:\n  vllm: {version: 0.31.0}\n"
    (found,) = findings(stack("custom-histogram-buckets: {}") + older)
    assert found.message == "vLLM flag `custom-histogram-buckets` is there since 0.32"
    assert found.secondary[0].span.line == 12
    assert findings(stack("custom-histogram-buckets: {}")) == ()
    assert findings(stack("log-level: DEBUG") + older) == ()  # came with 0.31


def test_flags_of_other_backends_are_not_looked_at(read: Read) -> None:
    loaded = read("version: 1\nmodels:\n  m: {backend: llamacpp, source: {path: m.gguf}}\n")
    assert not [item for item in resolve(loaded)[1] if item.code.startswith("IW5")]


@pytest.mark.parametrize(
    ("family", "classes", "name"),
    [
        ("florence2", None, "Florence2ForConditionalGeneration"),
        ("mpt", None, "MptForCausalLM"),
        ("anything", ("QWenLMHeadModel",), "QWenLMHeadModel"),
    ],
)
def test_a_network_that_vllm_gave_up_is_an_error_at_the_backend(
    findings: Findings, family: str, classes: tuple[str, ...] | None, name: str
) -> None:
    (found,) = findings(stack(), family, classes)
    assert (found.code, found.severity) == ("IW503", Severity.ERROR)
    assert found.message == f"vLLM 0.32.0 cannot serve {name}"
    assert place(found) == (6, 14)


@pytest.mark.parametrize(
    ("family", "classes"),
    [
        ("qwen3_vl", None),
        ("pixtral", None),
        ("never_heard_of", None),
        ("qwen3_vl", ("Qwen3VLForConditionalGeneration",)),
        ("florence2", ("Qwen3ForCausalLM",)),
    ],
)
def test_a_network_that_vllm_serves_or_that_is_not_known_is_not_judged(
    findings: Findings, family: str, classes: tuple[str, ...] | None
) -> None:
    assert findings(stack(), family, classes) == ()


@pytest.mark.parametrize("family", ["new", "florence2"])
def test_a_network_in_no_list_is_a_note(findings: Findings, family: str) -> None:
    (found,) = findings(stack(), family, ("NewForCausalLM",))
    assert (found.code, found.severity) == ("IW503", Severity.NOTE)


TABLE = table("0.32.0")
NAMES = st.sampled_from(sorted(TABLE.flags) if TABLE else []) | st.text("abc-_.", min_size=1, max_size=9)
VALUES = st.recursive(
    st.booleans() | st.integers(-9, 99) | st.text("ab=-{}", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1), inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(NAMES, VALUES, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_is_typed_is_planned_or_told_with_a_place(read: Read, known: Known, flags: Mapping[str, Any]) -> None:
    outcome = load("stack.yaml", MemoryFiles({"stack.yaml": stack() + f"    vllm: {json.dumps(flags)}\n"}), "studio")
    found = outcome.diagnostics
    if outcome.loaded is not None:
        locked = replace(outcome.loaded, lock=read(stack(), m=known(6)).lock)
        plans, found = resolve(locked)
        assert bool(plans) is not any(item.is_error for item in found)
    assert all(item.primary for item in found if item.is_error)


CASES = {
    "unknown": stack("tool-cal-parser: hermes"),
    "spelling": stack("tool_call_parser: hermes"),
    "value": stack("max-num-batched-tokens: lots"),
    "twins": stack("tool-server: a", "tool_server: b"),
    "needs": stack("enable-auto-tool-choice: true"),
    "tools": stack(backend="    capabilities: [chat, tools]\n"),
    "derived": stack("limit-mm-per-prompt: {image: 4}"),
    "plugin": stack("tool-call-parser: elephant"),
    "version": stack() + "backends:\n  vllm: {version: 0.30.0}\n",
    "removed": stack("swap-space: 4", "guided-decoding-backend: auto"),
    "newer": stack("log-level: DEBUG", "custom-histogram-buckets: {}") + "backends:\n  vllm: {version: 0.31.0}\n",
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_findings_about_vllm_read_well(findings: Findings, case: str, snapshot: SnapshotAssertion) -> None:
    assert full(findings(CASES[case]), {"stack.yaml": CASES[case]}) == snapshot


def test_a_lost_network_reads_well(findings: Findings, snapshot: SnapshotAssertion) -> None:
    assert full(findings(stack(), "florence2"), {"stack.yaml": stack()}) == snapshot
