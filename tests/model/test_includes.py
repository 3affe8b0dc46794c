from __future__ import annotations

from collections.abc import Callable

import pytest

from imageworks.model.load import Outcome, load
from imageworks.source.files import MemoryFiles

Read = Callable[..., Outcome]
HEAD = "version: 1\nmodels:\n  m: {backend: llamacpp, source: {path: m.gguf}}\n"


def stack(outcome: Outcome) -> object:
    assert outcome.loaded is not None, outcome.diagnostics
    return outcome.loaded.stack


def codes(outcome: Outcome) -> list[str]:
    return [item.code for item in outcome.diagnostics]


def test_an_included_file_lies_below_the_one_that_names_it(read: Read) -> None:
    below = "defaults: {grace: 9m, concurrency: 7}\nmodels:\n  j: {backend: ollama, source: {ollama: j}, vram: {weights: 1GiB}}\n"
    outcome = read(HEAD + "include: [models/judges.yaml]\ndefaults: {grace: 3m}\n", {"models/judges.yaml": below})
    assert outcome.loaded is not None
    found = outcome.loaded.stack
    assert (found.defaults.grace, found.defaults.concurrency, sorted(found.models)) == (180, 7, ["j", "m"])
    assert found.include == ("models/judges.yaml",)
    assert set(outcome.loaded.inputs) == {"stack.yaml", "models/judges.yaml"}


def test_a_path_counts_from_the_file_that_names_it(read: Read) -> None:
    files = {"sub/a.yaml": "include: [deeper/b.yaml]\n", "sub/deeper/b.yaml": "name: from-b\n"}
    outcome = read(HEAD + "include: [sub/a.yaml]\n", files)
    assert outcome.loaded is not None
    assert outcome.loaded.stack.name == "from-b"


def test_a_value_of_an_included_file_is_remembered_below(read: Read) -> None:
    outcome = read(HEAD + "include: [a.yaml]\nname: top\n", {"a.yaml": "name: low\n"})
    assert outcome.loaded is not None
    assert [place.value.file for place in outcome.loaded.origins["name",]] == ["a.yaml", "<built-in>"]


def test_two_included_files_that_disagree_are_both_shown(read: Read) -> None:
    files = {"a.yaml": "defaults: {grace: 3m}\n", "b.yaml": "name: x\ndefaults:\n  grace: 4m\n"}
    (found,) = read(HEAD + "include: [a.yaml, b.yaml]\n", files).diagnostics
    assert found.primary is not None
    first, second = found.secondary[0].span, found.primary.span
    assert (found.code, first.file, second.file, second.line, second.column) == ("IW311", "a.yaml", "b.yaml", 3, 10)
    assert "defaults.grace" in found.message


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("defaults: {grace: 3m}", "defaults: {grace: 3m}"),
        ("models: {m: {aliases+: [a]}}", "models: {m: {aliases+: [b]}}"),
        ("defaults: {grace: 3m}", "defaults: {concurrency: 3}"),
        ("include: [b.yaml]\nname: one", "name: two"),
    ],
)
def test_files_that_agree_or_include_each_other_are_no_conflict(read: Read, a: str, b: str) -> None:
    files = {"base.yaml": "models: {m: {aliases: []}}", "a.yaml": a + "\n", "b.yaml": b + "\n"}
    assert codes(read(HEAD + "include: [base.yaml, a.yaml, b.yaml]\n", files)) == []


def test_disagreement_deeper_down_is_found_once(read: Read) -> None:
    files = {
        "a.yaml": "include: [c.yaml]\n",
        "c.yaml": "models: {m: {roles: {chat: 1}}}\n",
        "b.yaml": "models: {m: {roles: 5}}\n",
    }
    outcome = read(HEAD + "include: [a.yaml, b.yaml]\n", files)
    assert [(item.code, item.message) for item in outcome.diagnostics if item.code == "IW311"] == [
        ("IW311", "two included files disagree about models.m.roles")
    ]


def test_a_file_that_two_include_is_read_once(read: Read) -> None:
    files = {
        "a.yaml": "include: [common.yaml]\n",
        "b.yaml": "include: [common.yaml]\n",
        "common.yaml": "models: {m: {aliases: [x]}}\n",
    }
    outcome = read(
        "version: 1\ninclude: [a.yaml, b.yaml]\nmodels: {m: {backend: llamacpp, source: {path: m}, aliases+: [y]}}\n",
        files,
    )
    assert outcome.loaded is not None
    assert outcome.loaded.stack.models["m"].aliases == ("x", "y")


def test_many_ways_to_one_file_cost_no_more_than_one(read: Read) -> None:
    levels = {
        f"{side}{level}.yaml": f"include: [a{level + 1}.yaml, b{level + 1}.yaml]\n"
        for level in range(30)
        for side in "ab"
    }
    files = {**levels, "a30.yaml": "name: deep\n", "b30.yaml": "name: deep\n"}
    outcome = read(HEAD + "include: [a0.yaml, b0.yaml]\n", files)  # 2**30 ways
    assert outcome.loaded is not None
    assert outcome.loaded.stack.name == "deep"


def test_an_endless_chain_of_files_is_told(read: Read) -> None:
    files = {f"{level}.yaml": f"include: [{level + 1}.yaml]\n" for level in range(3000)}
    (found,) = read(HEAD + "include: [0.yaml]\n", files).diagnostics
    assert (found.code, "40 deep" in found.message) == ("IW310", True)


@pytest.mark.parametrize(
    ("include", "code", "says"),
    [
        ("[none.yaml]", "IW310", "no such file"),
        ("[stack.yaml]", "IW310", "circle"),
        ("[a.yaml]", "IW310", "circle"),
        ("[/etc/passwd]", "IW304", "absolute"),
        ("[../x.yaml]", "IW304", "leave its root"),
        ("['${X}.yaml']", "IW315", "included file"),
        ("a.yaml", "IW200", "list"),
        ("", "IW209", "empty"),
    ],
)
def test_an_include_that_leads_nowhere_is_told_where_it_stands(read: Read, include: str, code: str, says: str) -> None:
    outcome = read(HEAD + f"include: {include}\n", {"a.yaml": "include: [b.yaml]\n", "b.yaml": "include: [a.yaml]\n"})
    assert outcome.loaded is None
    found = next(item for item in outcome.diagnostics if item.code == code)
    assert found.primary is not None
    assert says in found.message + found.primary.text


def test_a_mistake_in_an_included_file_is_told_in_that_file(read: Read) -> None:
    outcome = read(HEAD + "include: [a.yaml]\n", {"a.yaml": "models:\n  m: {contxt: 5}\n"})
    (found,) = outcome.diagnostics
    assert found.primary is not None
    assert (found.code, found.primary.span.file, found.primary.span.line) == ("IW201", "a.yaml", 2)
    assert outcome.texts["a.yaml"].startswith("models:")


def test_of_several_stacks_the_later_wins() -> None:
    files = MemoryFiles({"stack.yaml": HEAD + "name: one\n", "../more.yaml": "name: two\nmodels: {m: {context: 99}}\n"})
    outcome = load(("stack.yaml", "../more.yaml"), files, "x")
    assert outcome.loaded is not None
    assert (outcome.loaded.stack.name, outcome.loaded.stack.models["m"].context) == ("two", 99)
    assert load(("../more.yaml", "stack.yaml"), files, "x").loaded is not None


def test_changing_the_backend_above_its_keys_shows_both_places() -> None:
    low = "version: 1\nmodels:\n  m: {backend: vllm, source: {path: m}, vllm: {seed: 1}}\n"
    files = MemoryFiles({"stack.yaml": low, "b.yaml": "models: {m: {backend: llamacpp}}\n"})
    (found,) = load(("stack.yaml", "b.yaml"), files, "x").diagnostics
    assert found.primary is not None
    assert (found.code, found.primary.span.file, found.secondary[0].span.file) == ("IW205", "stack.yaml", "b.yaml")


def test_a_proposed_name_of_another_file_says_which_file(read: Read) -> None:
    text = HEAD + "include: [a.yaml]\ngroups: {g: {models: [judgee], profiles: [development]}}\n"
    below = "models:\n  judge: {backend: ollama, source: {ollama: j}, vram: {weights: 1GiB}}\n"
    (found,) = read(text, {"a.yaml": below}).diagnostics
    assert found.primary is not None
    assert "`judge` (a.yaml:2)" in found.primary.text
