"""supervisord.conf, read by supervisord's own reader."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from supervisor.options import ServerOptions
from syrupy.assertion import SnapshotAssertion

from imageworks import locations
from imageworks.output.consumers import read_supervisord
from imageworks.output.state import prepare_state
from imageworks.plan.ir import Plan
from imageworks.targets import supervisord

FOLDERS = ["plain", "a b", "it's", "a ;b", "a #b", "$HOME", "é漢", "(x)", "a&b|c", "-x", "a=b,c", "{stack}", "~"]


def write(plan: Plan, stack: Path) -> Path:
    """The files of the target below `stack`; returns the daemon's."""
    stack.mkdir(parents=True, exist_ok=True)
    assert prepare_state(stack, "/usr/bin/python3") == ()
    folder = stack / plan.out / plan.profile
    folder.mkdir(parents=True)
    for artifact in supervisord.emit(plan, (plan,)):
        (folder / artifact.path).write_text(artifact.text, "utf-8")
    return folder / "supervisord.conf"


def test_the_files_are_these(make_plan: Callable[..., Plan], snapshot: SnapshotAssertion) -> None:
    assert {file.path: file.text for file in supervisord.emit(make_plan(), ())} == snapshot


@pytest.mark.parametrize("name", FOLDERS)
def test_every_folder_name_survives_the_reader(name: str, make_plan: Callable[..., Plan], stack_folder: Path) -> None:
    stack = stack_folder / name
    conf = write(make_plan(), stack)
    read = read_supervisord(conf)
    assert read.problem is None
    assert read.unread == ()
    assert read.socket == str(locations.control_socket(stack))
    assert sorted(read.commands) == ["imageworks-proxy", "model-qwen3-vl-8b", "model-smollm2-135m"]
    for program, (launcher, spec) in read.commands.items():
        assert Path(launcher).resolve() == locations.launch_wrapper(stack).resolve()
        assert spec == str(conf.parent / "exec" / f"{program}.json")


def test_supervisorctl_needs_no_option_in_the_stacks_folder(make_plan: Callable[..., Plan], stack_folder: Path) -> None:
    write(make_plan(out="deep/out"), stack_folder)
    read = read_supervisord(stack_folder / "supervisord.conf")
    assert read.problem is None
    assert read.unread == ()


def test_the_client_file_is_the_same_for_every_profile(make_plan: Callable[..., Plan]) -> None:
    texts = {list(supervisord.emit(make_plan(profile, hash=profile), ()))[1].text for profile in ("a", "b")}
    assert len(texts) == 1


def test_a_dead_model_stays_dead_and_the_whole_group_is_stopped(
    make_plan: Callable[..., Plan], stack_folder: Path
) -> None:
    options = ServerOptions()
    conf = write(make_plan(stop_wait_s=30.2), stack_folder)
    options.configfile, options.here = str(conf), str(conf.parent)
    section = options.read_config(str(conf))
    for group in section.process_group_configs:
        (program,) = group.process_configs
        assert not program.autostart
        assert program.stopasgroup
        assert program.killasgroup
        assert program.stopwaitsecs == 31
        ours = program.name == "imageworks-proxy"
        assert bool(program.autorestart) == ours
        assert program.startretries == (3 if ours else 0)
        assert program.stdout_logfile == str(conf.parent / f"../../.imageworks/log/{program.name}.log")
    # supervisord stops the highest priority first: the proxy drains while its models still run
    priorities = {
        group.process_configs[0].name: group.process_configs[0].priority for group in section.process_group_configs
    }
    assert max(priorities, key=priorities.__getitem__) == "imageworks-proxy"
    assert section.umask == 0o077


def test_a_hostile_file_name_stays_in_its_comment(make_plan: Callable[..., Plan], stack_folder: Path) -> None:
    plan = make_plan()
    evil = tuple(
        dataclasses.replace(
            one, span=one.span and dataclasses.replace(one.span, file="x\n[program:evil]\ncommand=id\n;")
        )
        for one in plan.models
    )
    read = read_supervisord(write(make_plan(models=evil), stack_folder))
    assert "evil" not in read.commands
