"""Ports: unique, stable, never the proxy's."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from imageworks.diagnostics.model import Diagnostic, Severity
from imageworks.model.loaded import Loaded
from imageworks.plan.ir import Plan
from imageworks.plan.ports import FIRST_PORT, ports

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
