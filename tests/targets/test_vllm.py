"""The script for people runs the same command as the exec spec."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from imageworks import contract, launch, locations
from imageworks.plan.ir import Flag, Plan
from imageworks.targets import execspec, quoting, vllm
from imageworks.targets.artifact import Artifact

STUB = '#!/bin/sh\nprintf "%s\\0" "$CUDA_VISIBLE_DEVICES" "$HF_HUB_OFFLINE" vllm "$@"\n'


def script(plan: Plan) -> Artifact:
    (artifact,) = vllm.emit(plan, ())
    return artifact


def run(plan: Plan, stack: Path, environ: Mapping[str, str]) -> list[str]:
    """Run the emitted script with a `vllm` that prints its devices, one variable and its argv."""
    artifact = script(plan)
    path = stack / plan.out / plan.profile / artifact.path
    path.parent.mkdir(parents=True)
    path.write_text(artifact.text, "utf-8")
    path.chmod(artifact.mode)
    (stack / "bin").mkdir()
    stub = stack / "bin" / "vllm"
    stub.write_text(STUB)
    stub.chmod(0o755)
    done = subprocess.run(
        [path], env={"PATH": f"{stub.parent}:/usr/bin:/bin", **environ}, capture_output=True, check=True, cwd="/"
    )
    return done.stdout.decode().split("\0")[:-1]


def test_the_script_is_this(make_plan: Callable[..., Plan], snapshot: SnapshotAssertion) -> None:
    artifact = script(make_plan())
    assert (artifact.path, artifact.mode) == ("vllm/qwen3-vl-8b.sh", 0o755)
    assert artifact.text == snapshot


def test_it_runs_what_the_launcher_runs(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
    plan = make_plan()
    environ = {"IMAGEWORKS_MODELS": "/data/my models"}
    devices, offline, *argv = run(plan, tmp_path / "a b", environ)
    spec = tmp_path / "a b" / "generated/small/exec/x.json"
    spec.parent.mkdir()
    spec.write_text(next(file.text for file in execspec.emit(plan, ()) if "qwen3" in file.path), "utf-8")
    command = launch.resolve(spec, environ)
    assert tuple(argv) == command.argv
    assert devices == command.env["CUDA_VISIBLE_DEVICES"]
    assert offline == "1"


def test_models_lie_below_the_stack_unless_told_otherwise(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
    assert run(make_plan(), tmp_path, {"CUDA_VISIBLE_DEVICES": "3"})[:5] == [
        "3",
        "1",
        "vllm",
        "serve",
        f"{tmp_path}/models/Qwen/Qwen3 VL",
    ]


def test_a_relative_folder_counts_from_the_stack(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
    assert run(make_plan(), tmp_path, {"IMAGEWORKS_MODELS": "../m"})[4] == f"{tmp_path}/../m/Qwen/Qwen3 VL"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=20))
def test_every_word_and_token_reaches_the_program(words: list[str]) -> None:
    texts = [f"{contract.escape(word)}{{models}}{contract.escape(word)}" for word in words]
    shown = " ".join(vllm.shell_text(text) for text in texts)
    done = subprocess.run(
        ["sh"], input=f"models='/m x'\nprintf '%s\\0' {shown}".encode(), capture_output=True, check=True
    )
    assert done.stdout.decode().split("\0")[:-1] == [f"{word}/m x{word}" for word in words]


def test_a_word_that_no_argument_can_hold_is_refused() -> None:
    with pytest.raises(quoting.QuotingError, match="NUL"):
        vllm.shell_text("a\0b")


def test_weights_in_the_model_store_are_found_as_the_launcher_finds_them(
    make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = make_plan()
    qwen = next(model for model in plan.models if model.backend == "vllm")
    assert qwen.launch
    flags = (*qwen.launch.flags[:2], Flag("", "{store}/sha256/ab/x", "packaged", path=True))
    stored = make_plan(models=(dataclasses.replace(qwen, launch=dataclasses.replace(qwen.launch, flags=flags)),))
    for number, environ in enumerate(
        ({"HOME": "/h"}, {"HOME": "/h", "XDG_CACHE_HOME": "/x y"}, {"HOME": "/h", "IMAGEWORKS_STORE": "/s"})
    ):
        store = locations.store_dir(environ)
        assert run(stored, tmp_path / str(number), environ)[-1] == f"{store}/sha256/ab/x"
