"""Ports: unique, stable, never the proxy's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from imageworks.diagnostics.model import Diagnostic, Severity
from imageworks.model.loaded import Loaded
from imageworks.plan.ir import Plan
from imageworks.plan.ports import ports
from imageworks.plan.resolve import resolve
from imageworks.targets.registry import emit

FIRST_PORT = 24001

MODEL = "  {name}: {{backend: {backend}, {more}}}\n"
BACKENDS = {
    "llamacpp": "source: {path: x.gguf}",
    "ollama": "source: {ollama: x}",
    "vllm": "source: {path: org/x}",
    "openai": 'url: "http://127.0.0.1:9999"',
}


def stack(backends: Mapping[str, str], pins: Mapping[str, int], proxy: int = 8100) -> str:
    lines = ["version: 1\n", f"proxy: {{bind: 127.0.0.1:{proxy}}}\n", "models:\n"]
    for name, backend in backends.items():
        more = BACKENDS[backend]
        if name in pins:
            more += f", pin: {{port: {{value: {pins[name]}, because: test}}}}"
        lines.append(MODEL.format(name=name, backend=backend, more=more))
    return "".join(lines)


@given(
    backends=st.dictionaries(
        st.from_regex(r"[a-z]{1,6}", fullmatch=True), st.sampled_from(sorted(BACKENDS)), min_size=1, max_size=8
    ),
    pinned=st.lists(st.integers(FIRST_PORT, FIRST_PORT + 9), unique=True, max_size=3),
    proxy=st.integers(FIRST_PORT, FIRST_PORT + 5),
)
def test_no_two_models_share_a_port_and_none_has_the_proxys(
    read: Callable[..., Loaded], backends: dict[str, str], pinned: list[int], proxy: int
) -> None:
    own = [name for name, backend in backends.items() if backend in {"llamacpp", "vllm"}]
    pins = dict(zip(own, [port for port in pinned if port != proxy], strict=False))
    given_ports = ports(read(stack(backends, pins, proxy)).stack)
    assert sorted(given_ports) == sorted(own)
    assert len(set(given_ports.values())) == len(own)
    assert proxy not in given_ports.values()
    assert pins.items() <= given_ports.items()


def test_ports_follow_the_ids_and_are_the_same_on_every_profile(shipped: Mapping[str, Plan]) -> None:
    seen = {(model.id, model.port) for plan in shipped.values() for model in plan.models if model.port}
    assert [port for _, port in sorted(seen)] == list(range(FIRST_PORT, FIRST_PORT + len(seen)))


def test_a_pin_on_the_proxys_port_is_an_error(read: Callable[..., Loaded], one: Callable[..., Diagnostic]) -> None:
    found = one(read(stack({"a": "llamacpp"}, {"a": 8100})), "IW415")
    assert "the proxy's" in found.message
    assert found.primary is not None
    assert found.is_error


def test_a_pin_without_a_process_is_an_error(read: Callable[..., Loaded], one: Callable[..., Diagnostic]) -> None:
    assert "no port to pin" in one(read(stack({"a": "ollama"}, {"a": 24005})), "IW415").message


def test_a_pin_that_equals_the_derived_port_is_a_note(
    read: Callable[..., Loaded], one: Callable[..., Diagnostic]
) -> None:
    found = one(read(stack({"a": "llamacpp", "b": "llamacpp"}, {"b": FIRST_PORT + 1})), "IW416")
    assert found.severity is Severity.NOTE


def test_a_pin_with_an_effect_is_silent(read: Callable[..., Loaded], codes: Callable[..., tuple[str, ...]]) -> None:
    assert not {"IW415", "IW416"} & set(codes(read(stack({"a": "llamacpp"}, {"a": 24_500}))))


def test_the_declared_range_is_used_and_skips_what_is_taken(read: Callable[..., Loaded]) -> None:
    text = stack({"a": "llamacpp", "b": "llamacpp", "c": "vllm", "d": "llamacpp"}, {"b": 30_001}, proxy=30_002)
    given_ports = ports(read(text + "ports: {first: 30000, last: 30099}\n").stack)
    assert given_ports == {"a": 30_000, "b": 30_001, "c": 30_003, "d": 30_004}


def test_a_range_that_just_suffices_is_silent_and_one_less_is_an_error(
    read: Callable[..., Loaded], codes: Callable[..., tuple[str, ...]], one: Callable[..., Diagnostic]
) -> None:
    text = stack({"a": "llamacpp", "b": "llamacpp", "c": "ollama"}, {}, proxy=24_002)
    assert "IW417" not in codes(read(text + "ports: {first: 24001, last: 24003}\n"))
    found = one(read(text + "ports: {first: 24001, last: 24002}\n"), "IW417")
    assert found.message == "the port range is too small: 2 models need one each"
    assert found.primary is not None
    assert found.primary.text == "24001 to 24002 has 2, 1 of them pinned or the proxy's"
    assert found.fixes[0].text == "last: 24003 or more"
    (sums,) = found.sums
    assert [(term.name, term.amount, term.span and term.span.line) for term in (*sums.needed, *sums.available)] == [
        ("models", 2, text[: text.index("models:")].count("\n") + 1),
        ("range", 2, text.count("\n") + 1),
        ("taken", -1, text[: text.index("bind:")].count("\n") + 1),
    ]


def test_a_range_that_ends_before_it_begins_has_no_port(
    read: Callable[..., Loaded], one: Callable[..., Diagnostic]
) -> None:
    text = stack({"a": "llamacpp"}, {}) + "ports: {first: 24005, last: 24001}\n"
    found = one(read(text), "IW417")
    assert found.primary is not None
    assert found.primary.text == "24005 to 24001 has 0"


def test_unit_and_route_name_the_same_port_from_the_range(read: Callable[..., Loaded]) -> None:
    text = """
version: 1
models:
  m: {backend: llamacpp, source: {path: m.gguf}, placement: cpu, vram: {total: 1GiB, because: measured}}
ports: {first: 31000, last: 31000}
"""
    plans, findings = resolve(read(text))
    assert not findings
    plan = next(item for item in plans if item.profile == "development")
    files = {item.path: item.text for item in emit(plan, plans)}
    assert json.loads(files["routes.json"])["routes"]["m"]["url"] == "http://127.0.0.1:31000"
    argv = json.loads(files["exec/model-m.json"])["argv"]
    assert argv[argv.index("--port") + 1] == "31000"
