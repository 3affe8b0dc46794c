"""The exec spec, read back by the launcher that runs it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from imageworks import contract, launch
from imageworks.plan.ir import Flag, Plan
from imageworks.targets import execspec
from imageworks.targets.places import programs

SECRETS = (
    "VLLM_API_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "IMAGEWORKS_PHONE_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "OPENAI_API_KEY",
)
TOKENS = {"models": "/m", "stack": "/s", "state": "/s/.imageworks", "store": "/c", "python": "/p"}


def write(plan: Plan, folder: Path) -> dict[str, Path]:
    """The exec specs on disk as `compile` lays them out; program -> file."""
    files = {}
    for artifact in execspec.emit(plan, (plan,)):
        path = folder / plan.out / plan.profile / artifact.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(artifact.text, "utf-8")
        files[path.stem] = path
    return files


def test_each_program_has_a_spec(make_plan: Callable[..., Plan], snapshot: SnapshotAssertion) -> None:
    texts = {file.path: file.text for file in execspec.emit(make_plan(), ())}
    assert texts == snapshot


def test_the_launcher_resolves_literal_text_and_paths(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
    files = write(make_plan(), tmp_path)
    command = launch.resolve(files["model-qwen3-vl-8b"], {"PATH": "/bin", "IMAGEWORKS_MODELS": "/data"})
    assert command.argv == (
        "vllm",
        "serve",
        "/data/Qwen/Qwen3 VL",
        "--port=24001",
        "--max-model-len=6144",
        '--limit-mm-per-prompt={"image":2}',
        "--chat-template=it's {stack} 100% $HOME",
        "--enable-auto-tool-choice",
    )
    assert command.cwd == str(tmp_path)
    assert command.env["CUDA_VISIBLE_DEVICES"] == "0"
    assert command.missing == (
        contract.Need("/data/Qwen/Qwen3 VL", "hf download Qwen/Qwen3-VL --local-dir models/Qwen/Qwen3-VL"),
    )


def test_a_pair_is_two_words(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
    files = write(make_plan(), tmp_path)
    argv = launch.resolve(files["model-smollm2-135m"], {"IMAGEWORKS_STORE": "/store"}).argv
    assert argv[3:] == ("--model", "/store/sha256/b179/SmolLM2.gguf", "--ctx-size", "2048")


def test_a_deeper_output_folder_still_finds_the_stack(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
    files = write(make_plan(out="build/generated"), tmp_path)
    assert launch.resolve(files["imageworks-proxy"], {}).cwd == str(tmp_path)


@given(st.text(), st.text(), st.sampled_from(["equals", "pair"]))
def test_every_literal_value_arrives_exactly(name: str, value: str, form: str) -> None:
    flag = Flag(f"--{name.replace('{', '')}", value, "", form=form)  # type: ignore[arg-type]
    words = [contract.expand(word, TOKENS) for word in execspec.words(flag)]
    assert words == ([flag.name, value] if form == "pair" else [f"{flag.name}={value}"])


def test_environment_values_are_literal(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
    plan = make_plan()
    proxy = dataclasses.replace(plan.proxy, launch=dataclasses.replace(plan.proxy.launch, env={"X": "{models}/{lb}"}))
    files = write(make_plan(proxy=proxy), tmp_path)
    assert launch.resolve(files["imageworks-proxy"], {}).env["X"] == "{models}/{lb}"


def test_no_key_of_the_user_reaches_an_engine(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
    plan = make_plan()
    environ = dict.fromkeys((*SECRETS, "HOME", "LC_ALL", "CUDA_DEVICE_MAX_CONNECTIONS"), "x")
    for program in programs(plan):
        command = launch.resolve(write(plan, tmp_path)[program.name], environ)
        assert {"HOME", "LC_ALL"} <= command.env.keys()
        assert ("CUDA_DEVICE_MAX_CONNECTIONS" in command.env) == bool(program.launch.slots)
        if program.model is not None:
            assert not command.env.keys() & set(SECRETS)


def test_the_switches_of_the_proxy_reach_it(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
    switches = ("CHAT_PROXY_VISION_TRUNCATE_HISTORY", "CHAT_PROXY_REASONING_TRUNCATE_HISTORY", "IMAGEWORKS_FAST_PATH")
    command = launch.resolve(write(make_plan(), tmp_path)["imageworks-proxy"], dict.fromkeys(switches, "off"))
    assert set(switches) <= command.env.keys()


def test_the_proxy_gets_the_variables_of_the_roots(make_plan: Callable[..., Plan]) -> None:
    plan = make_plan()
    roots = (dataclasses.replace(plan.roots[0], env="STUDIO_MODELS"), *plan.roots[1:])
    spec = json.loads(next(iter(execspec.emit(make_plan(roots=roots), ()))).text)
    assert "STUDIO_MODELS" in spec["pass_env"]
    assert spec["roots"]["models"] == {"env": "STUDIO_MODELS", "default": "models"}
