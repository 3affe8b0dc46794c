from __future__ import annotations

from collections.abc import Callable

import pytest

from imageworks.model.load import Outcome

Read = Callable[..., Outcome]
BIND = "prompts: {bind: {app.stage: {role: chat, profile: hello}}}\n"
HEAD = "version: 1\nmodels:\n  m: {backend: llamacpp, source: {path: m.gguf}, roles: {chat: 50}}\n"


def test_layers_are_laid_over_each_other_key_by_key(read: Read) -> None:
    files = {
        "prompts/base/app/hello.yaml": "version: 1.10\nsystem: |\n  Be kind.\n  Be short.\nuser: Say {{ word }}\n",
        "prompts/user/app/hello.yaml": "version: 'mine'\nsystem: Be terse.\n",
    }
    loaded = read(HEAD + BIND, files).loaded
    assert loaded is not None
    hello = loaded.prompt_profiles["app", "hello"]
    assert (hello.version, hello.system, hello.user) == ("mine", "Be terse.", "Say {{ word }}")
    assert hello.layers == ("base", "user")


def test_the_order_of_layers_is_that_of_the_file(read: Read) -> None:
    files = {
        "prompts/base/app/p.yaml": "version: 1\nuser: base\n",
        "prompts/user/app/p.yaml": "version: 1\nuser: mine\n",
    }
    loaded = read(HEAD + "prompts: {layers: [user, base]}\n", files).loaded
    assert loaded is not None
    assert (loaded.prompt_profiles["app", "p"].user, loaded.prompt_profiles["app", "p"].layers) == (
        "base",
        ("user", "base"),
    )


def test_prompts_may_live_in_another_folder(read: Read) -> None:
    loaded = read(
        HEAD + BIND.replace("{bind", "{path: texts/v1, bind"), {"texts/v1/base/app/hello.yaml": "version: 1\nuser: x\n"}
    ).loaded
    assert loaded is not None
    assert list(loaded.prompt_profiles) == [("app", "hello")]


def test_files_that_are_no_prompts_are_left_alone(read: Read) -> None:
    files = {
        "prompts/README.md": "{{{",
        "prompts/old/app/p.yaml": "[",
        "prompts/base/app/deep/p.yaml": "[",
        "prompts/base/app/p.txt": "[",
        "prompts/base/p.yaml": "[",
        "prompts/base/app/p.yaml/x": "[",
    }
    outcome = read(HEAD, files)
    assert outcome.diagnostics == ()
    assert outcome.loaded is not None
    assert not outcome.loaded.prompt_profiles


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("version: 1\n", "IW202", 1),
        ("version: 1\nuser: ''\n", "IW213", 2),
        ("version: 1\nuser:\n", "IW209", 2),
        ("version: 1\nuser: x\nsytem: y\n", "IW201", 3),
        ("version: 1\nuser: x\nlayers: [a]\n", "IW201", 3),
        ("version: 1\nuser: [x]\n", "IW200", 2),
        ("user: x\n", "IW202", 1),
        ("", "IW107", 1),
        ("a: [\n", "IW100", 1),
    ],
)
def test_mistakes_in_a_prompt_file_are_placed_in_it(read: Read, text: str, code: str, line: int) -> None:
    found = read(HEAD, {"prompts/base/app/hello.yaml": text}).diagnostics
    assert [(item.code, item.primary and (item.primary.span.file, item.primary.span.line)) for item in found] == [
        (code, ("prompts/base/app/hello.yaml", line))
    ]


def test_a_binding_without_its_profile_says_where_it_looked(read: Read) -> None:
    files = {
        "prompts/base/app/hallo.yaml": "version: 1\nuser: x\n",
        "prompts/base/other/hello.yaml": "version: 1\nuser: x\n",
    }
    (found,) = read(HEAD + BIND, files).diagnostics
    assert (found.code, found.notes) == ("IW701", ("looked in prompts/{base,app,user}/app/",))
    assert found.fixes[0].edits[0].replacement == "hallo"


@pytest.mark.parametrize("stage", ["caption", "app.", ".x", "App.x", "a b.c"])
def test_a_binding_names_an_app_and_a_stage(read: Read, stage: str) -> None:
    found = read(HEAD + BIND.replace("app.stage", f"'{stage}'")).diagnostics
    assert [item.code for item in found] == ["IW702"]
