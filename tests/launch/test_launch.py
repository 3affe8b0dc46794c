from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks import launch
from imageworks.contract import Need, escape


class Stage(Protocol):
    folder: Path

    def write(self, **changes: Any) -> Path: ...
    def bind(self, text: str) -> None: ...
    def launch(self, *words: str | Path, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]: ...


def environment(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    _, environ, _ = json.loads(done.stdout)
    return dict(environ)


def test_nothing_of_the_environment_gets_through_but_what_the_spec_names(stage: Stage) -> None:
    spec = stage.write(env={"DO_NOT_TRACK": "1", "HOME": "/fixed"}, pass_env=("PATH", "HOME", "LC_*"))
    done = stage.launch(spec, environ={"HOME": "/h", "LC_ALL": "C.UTF-8", "AWS_SECRET": "x", "LCX": "x"})
    assert environment(done) == {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "DO_NOT_TRACK": "1",
        "HOME": "/fixed",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "",
        "IMAGEWORKS_STACK": str(stage.folder),
        "IMAGEWORKS_PROGRAM": "model-tiny",
        "SPT_NOENV": "1",
    }


def test_a_program_that_writes_a_title_of_its_own_is_known_again_by_its_environment(stage: Stage) -> None:
    """As vLLM's workers do; without SPT_NOENV the title stands where /proc shows the environment."""
    script = stage.folder / "title.py"
    script.write_text(
        "import json, setproctitle\n"
        "setproctitle.setproctitle('VLLM::EngineCore')\n"
        "print(json.dumps([open(f'/proc/self/{name}').read().split(chr(0)) for name in ('cmdline', 'environ')]))\n"
    )
    done = stage.launch(stage.write(argv=("{python}", str(script))))
    command, environ = json.loads(done.stdout)
    assert command[0] == "VLLM::EngineCore"
    assert "IMAGEWORKS_PROGRAM=model-tiny" in environ


def test_path_tokens_are_resolved_and_literal_words_stay(stage: Stage) -> None:
    argv = (
        "{python}",
        "-c",
        "import json,sys,os; print(json.dumps(sys.argv[1:]))",
        "{models}/a b",
        escape("{stack}"),
        '{"image":2}',
    )
    done = stage.launch(stage.write(argv=argv), environ={"STUDIO_MODELS": "/big"})
    assert json.loads(done.stdout) == ["/big/a b", "{stack}", '{"image":2}']


def test_the_program_starts_in_its_folder(stage: Stage) -> None:
    assert json.loads(stage.launch(stage.write()).stdout)[2] == str(stage.folder)


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (None, "1,0"),
        ({"schema": 1, "profile": "small", "uuids": ["GPU-a", "GPU-b"]}, "GPU-b,GPU-a"),
        ({"schema": 1, "profile": "other", "uuids": ["GPU-a"]}, "1,0"),
    ],
)
def test_gpu_slots_become_the_cards_that_up_has_bound(stage: Stage, devices: object, expected: str) -> None:
    if devices is not None:
        stage.bind(json.dumps(devices))
    assert environment(stage.launch(stage.write(devices=(1, 0))))["CUDA_VISIBLE_DEVICES"] == expected


def test_a_user_variable_cannot_move_a_program_to_another_card(stage: Stage) -> None:
    spec = stage.write(devices=(0,), pass_env=("CUDA_*",))
    assert environment(stage.launch(spec, environ={"CUDA_VISIBLE_DEVICES": "7"}))["CUDA_VISIBLE_DEVICES"] == "0"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            '{"schema": 1, "profile": "small", "uuids": ["GPU-a"]}',
            "the plan uses GPU slot 1, but only 1 GPU(s) are bound",
        ),
        ('{"schema": 9, "profile": "small", "uuids": []}', "newer ImageWorks"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"schema": 1, "profile": "small"}', "damaged"),
    ],
)
def test_unusable_bindings_stop_the_start(stage: Stage, text: str, reason: str) -> None:
    stage.bind(text)
    done = stage.launch(stage.write(devices=(1,)))
    assert (done.returncode, done.stdout) == (78, "")
    assert reason in done.stderr


def test_missing_weights_are_said_with_the_command_that_gets_them(stage: Stage) -> None:
    needs = (Need("{models}/org/repo", "hf download org/repo"), Need("{stack}", "never"))
    done = stage.launch(stage.write(needs=needs))
    expected = f"imageworks: error: model weights are missing: {stage.folder}/models/org/repo; get them: hf download org/repo\n"
    assert (done.returncode, done.stderr) == (78, expected)


def test_a_missing_program_is_127(stage: Stage) -> None:
    done = stage.launch(stage.write(argv=("vllm-nowhere", "serve")))
    assert done.returncode == 127
    assert done.stderr.startswith("imageworks: error: program `vllm-nowhere` not found on PATH (/usr/bin:/bin); ")


def test_a_file_that_is_no_program_is_126(stage: Stage) -> None:
    done = stage.launch(stage.write(argv=("{stack}",)))
    assert (done.returncode, done.stderr) == (
        126,
        f"imageworks: error: cannot run `{stage.folder}`: Permission denied\n",
    )


def test_a_missing_working_folder_is_named(stage: Stage) -> None:
    done = stage.launch(stage.write(cwd="{models}"))
    assert done.returncode == 78
    assert f"working directory {stage.folder}/models does not exist" in done.stderr


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"schema": 99}', b"\xff\xfe", b'{"schema": 1, "roots": []}'])
def test_a_spec_that_cannot_be_used_is_one_line_and_78(stage: Stage, text: bytes) -> None:
    file = stage.write()
    file.write_bytes(text)
    done = stage.launch(file)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (78, "", 1)
    assert str(file) in done.stderr


def test_a_missing_spec_is_one_line_and_78(stage: Stage) -> None:
    done = stage.launch(stage.folder / "no.json")
    assert (done.returncode, done.stderr.count("\n")) == (78, 1)


@given(
    st.dictionaries(
        st.sampled_from(["schema", "profile", "uuids"]), st.none() | st.integers() | st.text() | st.lists(st.text())
    )
)
def test_damaged_bindings_are_a_finding_whatever_they_hold(data: dict[str, object]) -> None:
    with pytest.raises(launch.LaunchError) as caught:
        launch.visible_devices((999,), json.dumps({**data, "profile": "small"}), "small")
    assert caught.value.code == 78


@pytest.mark.parametrize("words", [(), ("a", "b"), ("--help",), ("--print",)])
def test_a_wrong_call_shows_the_usage(stage: Stage, words: tuple[str, ...]) -> None:
    done = stage.launch(*words)
    assert (done.returncode, done.stderr) == (64, "usage: python -m imageworks.launch [--print] SPEC.json\n")


def test_the_printed_command_does_the_same_in_a_shell(stage: Stage) -> None:
    spec = stage.write(env={"NOTE": "it's $HOME; rm -rf"}, argv=("{python}", *SHOW, "a b", "$HOME", "'"), devices=(0,))
    environ = {"HOME": "/h", "PATH": "/usr/bin:/bin"}
    printed = stage.launch("--print", spec, environ=environ).stdout
    shell = subprocess.run(["sh", "-c", printed], env=environ, check=True, capture_output=True, text=True)
    assert json.loads(shell.stdout) == json.loads(stage.launch(spec, environ=environ).stdout)


SHOW = ("-c", "import json, os, sys; print(json.dumps([sys.argv[1:], sorted(os.environ.items()), os.getcwd()]))")


def test_printing_shows_no_inherited_value(stage: Stage) -> None:
    spec = stage.write(pass_env=("HF_TOKEN",))
    assert "hunter2" not in stage.launch("--print", spec, environ={"HF_TOKEN": "hunter2"}).stdout


def test_a_program_ends_with_the_supervisor_even_when_that_is_killed(stage: Stage) -> None:
    spec = stage.write(argv=("{python}", "-c", "import os, signal; print(os.getpid(), flush=True); signal.pause()"))
    supervisor = (
        "import signal, subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-m', 'imageworks.launch', sys.argv[1]])\n"
        "signal.pause()"
    )
    parent = subprocess.Popen([sys.executable, "-c", supervisor, str(spec)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    parent.stdout.readline()  # the program runs
    parent.kill()
    parent.wait()
    reader = select.select([parent.stdout], [], [], 20)[0]
    assert reader, "the program outlived its supervisor"
    assert parent.stdout.read() == ""  # end of file: the last holder of the pipe is gone
    parent.stdout.close()


def test_the_launcher_imports_nothing_that_a_start_would_wait_for() -> None:
    code = "import sys, imageworks.launch; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"asyncio", "click", "ctypes", "email", "http", "importlib.metadata", "shlex", "subprocess", "tempfile"}
    assert not heavy & set(loaded)
    assert {name for name in loaded if name.startswith("imageworks.")} == {
        "imageworks.contract",
        "imageworks.launch",
        "imageworks.locations",
        "imageworks.values",
    }
