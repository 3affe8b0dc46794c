"""Emitted files are read by their consumers' parsers before they are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from imageworks.commands.pipeline import artifacts, compile_stack
from imageworks.commands.validate import complaints
from imageworks.plan.ir import Plan
from imageworks.targets.artifact import Artifact

Made = tuple[Plan, Mapping[str, Artifact]]


@pytest.fixture
def made(small: Path) -> Made:
    compiled = compile_stack(small / "stack.yaml")
    files = artifacts(compiled.plans, compiled.profiles)["development"]
    return compiled.plan("development"), {file.path: file for file in files}


def spoilt(made: Made, path: str, old: str, new: str) -> Mapping[str, Artifact]:
    file = made[1][path]
    assert old in file.text
    return {**made[1], path: dataclasses.replace(file, text=file.text.replace(old, new))}


def test_what_we_emit_is_accepted(made: Made) -> None:
    assert complaints(*made) == ()


@pytest.mark.parametrize(
    ("path", "old", "new", "complaint"),
    [
        ("supervisord.conf", "autorestart=", "autorestrat=", "does not know program:"),
        ("supervisord.conf", "startsecs=1", "startsecs=soon", "'soon'"),
        ("supervisord.conf", "[program:model-gemma-4b]", "[program:model-gemma-5b]", "model-gemma-4b is missing"),
        ("routes.json", '"port"', '"prot"', "routes.json"),
        ("exec/model-gemma-4b.json", '"argv"', '"agrv"', "exec/model-gemma-4b.json: not an exec spec"),
    ],
)
def test_what_a_consumer_would_refuse_is_found(made: Made, path: str, old: str, new: str, complaint: str) -> None:
    said = complaints(made[0], spoilt(made, path, old, new))
    assert any(complaint in line for line in said), said


def test_systemd_is_heard_where_it_is_installed(made: Made, tool: Callable[[str], str]) -> None:
    tool("systemd-analyze")
    files = spoilt(made, "systemd/model-gemma-4b.service", "KillMode=", "KilMode=")
    assert any("KilMode" in line for line in complaints(made[0], files))
