from __future__ import annotations

from collections.abc import Callable

import pytest

from imageworks.diagnostics.model import Applicability, Diagnostic
from imageworks.model.load import Outcome

Found = Callable[..., list[tuple[str, int, int]]]
Read = Callable[..., Outcome]
M = "version: 1\nmodels:\n  m:\n    backend: llamacpp\n    source: {path: m.gguf}\n"


def only(outcome: Outcome) -> Diagnostic:
    assert len(outcome.diagnostics) == 1, [item.message for item in outcome.diagnostics]
    return outcome.diagnostics[0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("    context: 8k", ("IW213", 6, 14)),
        ("    context: {at_least: 9, up_to: 8}", ("IW206", 6, 14)),
        ("    context: {at_least: 9}", ("IW202", 6, 5)),
        ("    context: [1]", ("IW200", 6, 14)),
        ("    context:", ("IW209", 6, 5)),
        ("    context: ~", ("IW209", 6, 5)),
        ("    aliases: [a, ~, b]", ("IW209", 6, 18)),
        ("    backend: [vllm]", ("IW103", 6, 5)),
        ("    aliases: [a, ]\n    roles: {chat: }", ("IW209", 7, 13)),
        ("    grace: 300", ("IW204", 6, 12)),
        ("    vram: {weights: 10.6GB}", ("IW203", 6, 21)),
        ("    vram: 10GiB", ("IW200", 6, 11)),
        ("    aliases: x", ("IW200", 6, 14)),
        ("    roles: [chat]", ("IW200", 6, 12)),
        ("    roles: {chat: 850}", ("IW206", 6, 19)),
        ("    roles: {Chat Role: 50}", ("IW211", 6, 13)),
        ("    port: 24001", ("IW207", 6, 5)),
        ("    capabilities: [chat, visoin]", ("IW208", 6, 26)),
        ("    quantization: q3", ("IW208", 6, 19)),
        ("    sampling: {temperature: 9}", ("IW206", 6, 29)),
        ("    sampling: {temperature: nan}", ("IW213", 6, 29)),
        ("    sampling: {temprature: 0.3}", ("IW201", 6, 16)),
        ("    pin: {port: {value: 24001}}", ("IW202", 6, 11)),
        ("    pin: {port: 24001}", ("IW200", 6, 17)),
        ("    mmproj: x.gguf", ("IW201", 6, 5)),
    ],
)
def test_each_refusal_has_its_code_and_place(found: Found, line: str, expected: tuple[str, int, int]) -> None:
    assert found(M + line + "\n") == [expected]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("models: {}\n", "IW210"),
        ("version: 2\nmodels: {}\n", "IW210"),
        ("version: one\nmodels: {}\n", "IW210"),
        ("version: 1\n", "IW202"),
        ("version: 1\nmodels: []\n", "IW200"),
        ("version: 1\nmodels: {}\nextra: 1\n", "IW201"),
        ("version: 1\nmodels: {}\nprofiles: {mine: {headroom: 1GiB}}\n", "IW202"),
        ('version: 1\nmodels: {}\nprofiles: {mine: {match: {gpus: 1, vram: "15-22GiB"}}}\n', "IW213"),
        ("version: 1\nmodels: {Bad Name: {backend: openai, url: 'http://x'}}\n", "IW211"),
    ],
)
def test_the_top_level_is_checked(read: Read, text: str, code: str) -> None:
    assert only(read(text)).code == code


def test_a_misspelt_key_is_one_mistake(read: Read) -> None:
    finding = only(read(M.replace("backend", "bakend")))
    assert (finding.code, finding.primary and finding.primary.text) == ("IW201", "did you mean `backend`?")
    assert finding.fixes[0].applicability is Applicability.SAFE
    assert finding.fixes[0].edits[0].replacement == "backend"


def test_an_unknown_key_without_a_likeness_lists_the_known_ones(read: Read) -> None:
    finding = only(read(M + "proxy: {experimental: {}}\n"))
    assert finding.notes == ("known here: auth bind history images limits parameters",)
    assert not any(fix.edits for fix in finding.fixes)


def test_an_unknown_backend_is_one_mistake_and_common_keys_are_checked(found: Found, read: Read) -> None:
    text = M.replace("llamacpp", "lamacpp") + "    url: http://x\n    command: [a]\n    vllm: {a: 1}\n"
    finding = only(read(text))
    assert (finding.code, finding.message) == ("IW205", "unknown backend `lamacpp`")
    assert finding.notes[0].startswith("one of: vllm llamacpp ollama openai")
    assert [code for code, *_ in found(text + "    grace: 300\n")] == ["IW205", "IW204"]


def test_an_unknown_word_is_named_after_its_key(read: Read) -> None:
    assert only(read(M + "    capabilities: [visoin]\n")).message == "unknown capability `visoin`"
    assert only(read(M + "    keep: pined\n")).message == "unknown keep `pined`"
    assert (
        only(read(M + "profiles: {development: {selection_bias: fast}}\n")).message == "unknown selection bias `fast`"
    )


def test_applying_a_safe_fix_makes_the_stack_load(read: Read) -> None:
    text = M.replace("backend", "bakend") + "    capabilities: [visoin]\nroles: {caption: {max_tokns: 9}}\n"
    edits = [edit for item in read(text).diagnostics for fix in item.fixes for edit in fix.edits]
    for edit in sorted(edits, key=lambda edit: edit.span.start, reverse=True):
        text = text[: edit.span.start] + edit.replacement + text[edit.span.end :]
    assert read(text).diagnostics == ()


def test_all_mistakes_of_a_file_are_found_at_once(found: Found) -> None:
    text = (
        "version: 1\ndefaults: {grace: 300}\nmodels:\n  a:\n    bakend: vllm\n    source: {path: x}\n"
        "  b:\n    backend: vllm\n    source: {path: /x}\n    roles: {captoin: 850}\n"
        "groups: {g: {models: [c], profiles: [developmnt]}}\nproxy: {bind: 0.0.0.0:1}\nprompts: {bind: {x: {role: chat}}}\n"
    )
    assert [code for code, *_ in found(text)] == [
        "IW204", "IW201", "IW304", "IW301", "IW206", "IW302", "IW302", "IW330", "IW202", "IW702",
    ]  # fmt: skip


def test_a_section_that_cannot_be_read_does_not_make_others_wrong(found: Found) -> None:
    text = "version: 1\nmodels:\n  m: {backend: llamacpp\ngroups: {g: {models: [m], profiles: [development]}}\nproxy: {bnd: x}\n"
    assert [code for code, *_ in found(text)] == ["IW100", "IW201"]


def test_a_version_is_only_put_where_a_line_can_stand(read: Read) -> None:
    inside = only(read("{models: {}}\n"))
    assert (inside.code, [fix.edits for fix in inside.fixes]) == ("IW210", [()])
    (fix,) = only(read("models: {}\n")).fixes
    assert [edit.replacement for edit in fix.edits] == ["version: 1\n"]


def test_a_list_where_a_word_chooses_the_kind_is_told_as_such(read: Read) -> None:
    found = only(read("version: 1\nmodels: {m: {backend: [vllm], source: {path: x}}}\n"))
    assert found.primary is not None
    assert (found.code, found.primary.span.column) == ("IW200", 23)
