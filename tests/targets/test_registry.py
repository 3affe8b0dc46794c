"""What is emitted as a whole."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import jinja2
import pytest

from imageworks import locations
from imageworks.plan.ir import Options, Plan
from imageworks.targets import places, registry, templating
from imageworks.targets.artifact import Artifact


def emit(plan: Plan) -> dict[str, Artifact]:
    return {file.path: file for file in registry.emit(plan, (plan,))}


def switched(
    *, supervisord: bool = True, systemd: bool = True, vllm_scripts: bool = True, prefix: str = "%h/x"
) -> Options:
    return Options(
        supervisord=supervisord, systemd=systemd, systemd_scope="user", systemd_prefix=prefix, vllm_scripts=vllm_scripts
    )


def test_all_files_of_a_profile(make_plan: Callable[..., Plan]) -> None:
    assert list(emit(make_plan())) == [
        "../../supervisord.conf",
        "exec/imageworks-proxy.json",
        "exec/model-qwen3-vl-8b.json",
        "exec/model-smollm2-135m.json",
        "plan.json",
        "prompts.json",
        "routes.json",
        "supervisord.conf",
        "systemd/imageworks-gpu0.slice",
        "systemd/imageworks-proxy.service",
        "systemd/imageworks.slice",
        "systemd/imageworks.target",
        "systemd/model-qwen3-vl-8b.service",
        "systemd/model-smollm2-135m.service",
        "vllm/qwen3-vl-8b.sh",
    ]


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        (switched(supervisord=False), r"supervisord\.conf"),
        (switched(systemd=False), r"systemd/"),
        (switched(vllm_scripts=False), r"vllm/"),
    ],
)
def test_a_target_that_is_switched_off_writes_nothing(
    options: Options, gone: str, make_plan: Callable[..., Plan]
) -> None:
    everything = emit(make_plan(options=switched()))
    assert emit(make_plan(options=options)).keys() == {path for path in everything if not re.search(gone, path)}


def test_generated_text_names_its_source_and_nothing_of_this_machine(make_plan: Callable[..., Plan]) -> None:
    for path, file in emit(make_plan()).items():
        assert file.text.endswith("\n")
        assert str(Path.cwd()) not in file.text
        assert str(Path.home()) not in file.text
        if not path.endswith(".json"):
            assert places.HEADER in file.text


def test_the_same_plan_gives_the_same_bytes(make_plan: Callable[..., Plan]) -> None:
    assert registry.emit(make_plan(), (make_plan(),)) == registry.emit(make_plan(), (make_plan(),))


def test_two_files_at_one_place_are_refused(make_plan: Callable[..., Plan]) -> None:
    plan = make_plan()
    with pytest.raises(ValueError, match=r"written twice: exec/model-qwen3-vl-8b\.json"):
        registry.emit(make_plan(models=(*plan.models, plan.models[2])), (plan,))


def test_a_prefix_that_a_unit_cannot_carry_is_a_finding(make_plan: Callable[..., Plan]) -> None:
    bad, good = make_plan(options=switched(prefix="~/x")), make_plan(options=switched())
    (found,) = registry.check((bad, good, bad))
    assert found.code == "IW520"
    assert "~/x" in found.message
    assert found.is_error
    assert registry.check((make_plan(options=switched(prefix="~/x", systemd=False)),)) == ()


@pytest.mark.parametrize("prefix", ["%h/imageworks", "/home/%u/x"])
def test_a_prefix_of_root_is_a_finding_for_units_of_the_system(prefix: str, make_plan: Callable[..., Plan]) -> None:
    options = switched(prefix=prefix)
    (found,) = registry.check((make_plan(options=dataclasses.replace(options, systemd_scope="system")),))
    assert (found.code, found.fixes[0].text) == ("IW520", "a folder such as /srv/imageworks")
    assert registry.check((make_plan(options=options),)) == ()


def test_a_name_the_view_lacks_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        templating.render("supervisord.conf.j2", object())


def test_the_state_folder_has_one_name() -> None:
    assert places.STATE == locations.STATE_FOLDER
