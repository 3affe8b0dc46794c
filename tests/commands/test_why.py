"""`imageworks why`: every value answers where it comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Verb

STACK = """version: 1
variables: {QUANT: Q4_K_M}            # of the day
models:
  gemma-4b:                           # the one for chat
    backend: llamacpp
    source: {path: "gemma-3-4b-it-${QUANT}.gguf"}
    vram: {weights: 2.5GiB, kv: 0.5GiB}
    context: 4096                     # long enough
    aliases: [g]
    roles: {chat: 50}
profiles:
  development:
    override:
      models: {gemma-4b: {context: 1024}}   # a small laptop
"""


@pytest.fixture
def stack(folder: Path) -> Path:
    """A stack with a variable, an override and a layer of this machine's own."""
    (folder / "stack.yaml").write_text(STACK, encoding="utf-8")
    local = "profiles: {constrained_16gb: {headroom: 0.5GiB}}   # no desktop\nmodels: {gemma-4b: {aliases+: [h]}}\n"
    (folder / "stack.local.yaml").write_text(local, encoding="utf-8")
    return folder


def lines(verb: Verb, *words: str) -> list[str]:
    code, out, err = verb("why", *words)
    assert code == 0, err
    return out.splitlines()


@pytest.mark.usefixtures("stack")
class TestWhy:
    def test_a_value_of_the_machine_says_what_it_stands_over_and_what_follows(self, verb: Verb) -> None:
        assert lines(verb, "profiles.constrained_16gb.headroom") == [
            '0.5GiB   stack.local.yaml:1:41   "no desktop"',
            "  over  1.2GiB   built in",
            "  budget of GPU 0 on constrained_16gb: 14.40 GiB   14.90 at the lower end of match.vram - 0.50 headroom",
        ]

    def test_an_override_counts_where_its_profile_is_looked_at(self, verb: Verb) -> None:
        here = lines(verb, "models.gemma-4b.context")
        assert here[0] == '1024   stack.yaml:14:36   "a small laptop"'
        assert here[1] == '  over  4096   stack.yaml:8:14   "long enough"'
        assert here[2].startswith("  context on development: 1024   declared")
        there = lines(verb, "models.gemma-4b.context", "--profile", "constrained_16gb")
        assert there[0] == '4096   stack.yaml:8:14   "long enough"'

    def test_the_sum_behind_a_number_that_is_never_written(self, verb: Verb) -> None:
        found = "\n".join(lines(verb, "models.gemma-4b.budget", "--profile", "constrained_16gb"))
        assert "weights            2.50 GiB" in found
        assert "sum " in found
        assert "budget of GPU 0 on constrained_16gb: 14.40 GiB" in found

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("models.gemma-4b.port", "port on development: 24001"),
            ("models.gemma-4b.concurrency", "from defaults.concurrency"),
            ("models.gemma-4b.grace", "120s   built in   from profiles.development.grace"),
            ("models.gemma-4b.keep", "grace, by default"),
            ("models.gemma-4b", "{backend, source, vram, context, aliases, roles}   stack.local.yaml:2:20"),
            ("models.gemma-4b.aliases", "[g, h]   stack.local.yaml:2:31"),
            ("models.gemma-4b.aliases[1]", "h   stack.local.yaml:2:32"),
            ("models.gemma-4b.source.path", '  ${QUANT} = Q4_K_M   stack.yaml:2:20   "of the day"'),
            ("roles.chat", "answer 1 on development: gemma-4b"),
            ("proxy.bind", "127.0.0.1:8100, by default"),
            ("proxy.limits.body", "64MiB, by default"),
        ],
    )  # fmt: skip
    def test_every_value_answers(self, verb: Verb, path: str, expected: str) -> None:
        assert expected in "\n".join(lines(verb, path))

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("models.gemma-4b.contxt", "did you mean `models.gemma-4b.context`?"),
            ("models.gema-4b.context", "did you mean `models.gemma-4b`?"),
            ("modls", "did you mean `models`?"),
            ("models.gemma-4b.context.x", "it is a value"),
            ("models.gemma-4b.zzzz", "there is: "),
        ],
    )
    def test_an_unknown_path_says_what_there_is(self, verb: Verb, path: str, expected: str) -> None:
        code, _, err = verb("why", path)
        assert code == 1
        assert expected in err

    def test_a_program_reads_the_same(self, verb: Verb) -> None:
        code, out, _ = verb("why", "models.gemma-4b.context", "--format", "json")
        found = json.loads(out)
        assert code == 0
        assert (found["path"], found["profile"], found["value"]) == ("models.gemma-4b.context", "development", "1024")
        assert found["place"] == {"file": "stack.yaml", "line": 14, "column": 36}
        assert [below["value"] for below in found["over"]] == ["4096"]
        assert {term["name"] for item in found["derived"] for term in item["terms"]} >= {"weights", "KV cache"}

    def test_a_stack_that_does_not_compile_is_explained(self, verb: Verb, stack: Path) -> None:
        (stack / "stack.yaml").write_text(STACK.replace("backend", "bakend"), encoding="utf-8")
        code, _, err = verb("why", "models")
        assert code == 1
        assert "did you mean `backend`?" in err


def test_a_model_that_is_left_out_says_why(small: Path, verb: Verb) -> None:
    text = (small / "stack.yaml").read_text().replace("2.5GiB", "200GiB")
    (small / "stack.yaml").write_text(text, encoding="utf-8")
    code, out, _ = verb("why", "models.gemma-4b.vram", "--profile", "compact_8gb")
    assert code == 0
    assert "left out on compact_8gb" in out
    assert "200.00 GiB" in out
