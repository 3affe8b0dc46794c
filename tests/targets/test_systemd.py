"""Units, judged by systemd-analyze."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from syrupy.assertion import SnapshotAssertion

from imageworks.output.consumers import verify_units
from imageworks.output.state import prepare_state
from imageworks.plan.ir import Options, Plan
from imageworks.targets import systemd

ROOT = Path(__file__).parents[2]


def options(scope: str, prefix: str) -> Options:
    known: Literal["user", "system"] = "system" if scope == "system" else "user"
    return Options(supervisord=True, systemd=True, systemd_scope=known, systemd_prefix=prefix, vllm_scripts=True)


def write(plan: Plan, stack: Path) -> list[Path]:
    """The units, with a launcher where they expect one."""
    assert prepare_state(stack, "/usr/bin/python3") == ()
    files = []
    for artifact in systemd.emit(plan, (plan,)):
        path = stack / artifact.path
        path.parent.mkdir(exist_ok=True)
        path.write_text(artifact.text, "utf-8")
        files += [path] if path.parent.name == "systemd" else []
    return files


@pytest.mark.parametrize("scope", ["user", "system"])
def test_the_units_are_these(scope: str, make_plan: Callable[..., Plan], snapshot: SnapshotAssertion) -> None:
    plan = make_plan(options=options(scope, "%h/imageworks" if scope == "user" else "/srv/imageworks"))
    assert {file.path: file.text for file in systemd.emit(plan, ())} == snapshot


@pytest.mark.parametrize("scope", ["user", "system"])
@pytest.mark.parametrize("out", ["generated", "gene%h rated $HOME;"])
def test_systemd_has_no_complaint(
    scope: str, out: str, make_plan: Callable[..., Plan], stack_folder: Path, tool: Callable[[str], str]
) -> None:
    tool("systemd-analyze")
    stack = stack_folder / "image works"
    stack.mkdir()
    assert verify_units(write(make_plan(out=out, options=options(scope, str(stack))), stack)) == ()


def exposures(program: str, *units: Path) -> dict[str, float]:
    """What `systemd-analyze security` says of each unit: 0 is best, 10 worst."""
    command = [program, "security", "--offline=true", "--no-pager", *map(str, units)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.findall(r"exposure level for (\S+)\.service: ([0-9.]+)", done.stdout)
    assert len(found) == len(units), done.stderr
    return {name: float(level) for name, level in found}


def exposure(program: str, unit: Path) -> float:
    (level,) = exposures(program, unit).values()
    return level


@pytest.mark.parametrize("profile", sorted(path.parent.name for path in (ROOT / "generated").glob("*/systemd")))
def test_every_shipped_unit_is_hardened(profile: str, tool: Callable[[str], str]) -> None:
    units = sorted((ROOT / "generated" / profile / "systemd").glob("*.service"))
    levels = exposures(tool("systemd-analyze"), *units)
    on_gpu = {unit.stem for unit in units if "DeviceAllow=char-nvidia rw" in unit.read_text("utf-8")}
    # where there is a GPU the proxy measures its memory, so it must see the device
    assert ("imageworks-proxy" in on_gpu) == (profile != "development")
    engines = {name for name in on_gpu if name.startswith("model-")}
    assert {name: level for name, level in levels.items() if level > (2.0 if name in engines else 1.2)} == {}


@pytest.mark.parametrize(
    ("unit", "limit"), [("imageworks-proxy", 4.9), ("model-qwen3-vl-8b", 5.1), ("model-smollm2-135m", 4.7)]
)
def test_user_units_are_as_hard_as_their_manager_can_make_them(
    unit: str, limit: float, make_plan: Callable[..., Plan], stack_folder: Path, tool: Callable[[str], str]
) -> None:
    """The levels of decision 022; the proxy here has a remote model, so it may leave the machine."""
    write(make_plan(options=options("user", str(stack_folder))), stack_folder)
    assert exposure(tool("systemd-analyze"), stack_folder / f"systemd/{unit}.service") <= limit


@pytest.mark.parametrize(
    ("unit", "limit"), [("imageworks-proxy", 1.3), ("model-qwen3-vl-8b", 2.0), ("model-smollm2-135m", 1.2)]
)
def test_system_units_are_hardened(
    unit: str, limit: float, make_plan: Callable[..., Plan], stack_folder: Path, tool: Callable[[str], str]
) -> None:
    write(make_plan(options=options("system", str(stack_folder))), stack_folder)
    assert exposure(tool("systemd-analyze"), stack_folder / f"systemd/{unit}.service") <= limit


def unit(plan: Plan, name: str) -> str:
    return next(file.text for file in systemd.emit(plan, ()) if file.path == f"systemd/{name}.service")


def test_the_proxy_of_a_system_may_start_its_models_and_no_other_unit(make_plan: Callable[..., Plan]) -> None:
    files = {file.path: file.text for file in systemd.emit(make_plan(options=options("system", "/srv/iw")), ())}
    rule = files["polkit/50-imageworks.rules"]
    assert re.findall(r'"(\S+)\.service"', rule) == [
        path[len("systemd/") : -len(".service")] for path in files if path.startswith("systemd/model-")
    ]
    assert 'verbs = ["start", "stop", "reset-failed"]' in rule
    assert 'subject.user == "imageworks"' in rule
    assert "User=imageworks\n" in files["systemd/imageworks-proxy.service"]
    no_models = systemd.emit(make_plan(options=options("system", "/srv/iw"), models=()), ())
    assert not [file.path for file in (*no_models, *systemd.emit(make_plan(), ())) if "polkit" in file.path]


def test_each_gpu_has_its_slice(make_plan: Callable[..., Plan]) -> None:
    plan = make_plan()
    qwen = next(model for model in plan.models if model.launch and model.launch.program == "model-qwen3-vl-8b")
    assert qwen.launch is not None
    launch = dataclasses.replace(qwen.launch, program="model-split", slots=(0, 1))
    split = dataclasses.replace(qwen, id="split", launch=launch)
    plan = make_plan(models=(*plan.models, split))
    files = {file.path: file.text for file in systemd.emit(plan, ())}
    slices = sorted(path for path in files if path.endswith(".slice"))
    assert slices == [
        "systemd/imageworks-gpu0.slice",
        "systemd/imageworks-gpu0_1.slice",
        "systemd/imageworks.slice",
    ]
    assert "GPU 0 and GPU 1\n" in files["systemd/imageworks-gpu0_1.slice"]
    for name, slice_ in (
        ("imageworks-proxy", "imageworks"),
        ("model-smollm2-135m", "imageworks"),
        ("model-qwen3-vl-8b", "imageworks-gpu0"),
        ("model-split", "imageworks-gpu0_1"),
    ):
        assert f"\nSlice={slice_}.slice\n" in unit(plan, name)


def test_an_engine_of_the_system_has_a_home_it_may_write(make_plan: Callable[..., Plan]) -> None:
    plan = make_plan(options=options("system", "/srv/iw"))
    assert 'Environment="HOME=/srv/iw/.imageworks/home"' in unit(plan, "model-qwen3-vl-8b")
    assert 'ReadWritePaths="/srv/iw/.imageworks"' in unit(plan, "model-qwen3-vl-8b")
    assert "HOME=" not in unit(plan, "imageworks-proxy").replace("XDG_CACHE_HOME=", "")
    assert '"HOME=' not in unit(make_plan(), "model-qwen3-vl-8b")


def test_a_gpu_program_sees_the_gpu_and_nothing_else(make_plan: Callable[..., Plan]) -> None:
    text = unit(make_plan(options=options("system", "/srv/iw")), "model-qwen3-vl-8b")
    assert "DevicePolicy=closed\n" in text
    assert "DeviceAllow=char-nvidia rw\n" in text
    for breaks_a_gpu in ("PrivateDevices", "MemoryDenyWriteExecute", "ProcSubset"):
        assert f"\n{breaks_a_gpu}=" not in text


def test_a_user_unit_asks_for_nothing_a_user_manager_cannot_do(make_plan: Callable[..., Plan]) -> None:
    for name in ("imageworks-proxy", "model-qwen3-vl-8b", "model-smollm2-135m"):
        text = unit(make_plan(), name)
        for privileged in (
            "User=",
            "CapabilityBoundingSet=",
            "PrivateUsers=",
            "PrivateDevices=",
            "ProtectClock=",
            "ProtectKernelModules=",
            "ProtectKernelLogs=",
        ):
            assert f"\n{privileged}" not in text


def test_the_unit_waits_longer_than_the_program_drains(make_plan: Callable[..., Plan]) -> None:
    plan = make_plan(stop_wait_s=30.5)
    for name in ("imageworks-proxy", "model-qwen3-vl-8b"):
        found = re.search(r"TimeoutStopSec=(\d+)\n", unit(plan, name))
        assert found
        assert int(found[1]) > plan.stop_wait_s > plan.proxy.drain_s


def test_only_the_proxy_is_restarted_by_systemd(make_plan: Callable[..., Plan]) -> None:
    assert "\nRestart=always\n" in unit(make_plan(), "imageworks-proxy")
    assert "\nRestart=no\n" in unit(make_plan(), "model-qwen3-vl-8b")
    assert 'Environment="IMAGEWORKS_INIT=systemd-user"' in unit(make_plan(), "imageworks-proxy")
    assert "TimeoutStartSec=120\n" in unit(make_plan(), "model-qwen3-vl-8b")


def test_a_proxy_with_a_remote_model_may_leave_the_machine(make_plan: Callable[..., Plan]) -> None:
    plan = make_plan()
    local = make_plan(models=tuple(one for one in plan.models if one.placement.kind != "remote"))
    assert "IPAddressDeny=any" not in unit(plan, "imageworks-proxy")
    assert "IPAddressDeny=any" in unit(local, "imageworks-proxy")
    assert "IPAddressDeny=any" in unit(plan, "model-qwen3-vl-8b")
