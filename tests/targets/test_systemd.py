"""Units, judged by systemd-analyze."""

from __future__ import annotations

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
        files.append(path)
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


def exposure(program: str, unit: Path) -> float:
    done = subprocess.run(
        [program, "security", "--offline=true", str(unit)], capture_output=True, text=True, check=False
    )
    found = re.search(r"exposure level for \S+ ([0-9.]+)", done.stdout)
    assert found, done.stderr
    return float(found[1])


@pytest.mark.parametrize(
    ("unit", "limit"), [("imageworks-proxy", 1.2), ("model-qwen3-vl-8b", 2.0), ("model-smollm2-135m", 1.2)]
)
def test_system_units_are_hardened(
    unit: str, limit: float, make_plan: Callable[..., Plan], stack_folder: Path, tool: Callable[[str], str]
) -> None:
    write(make_plan(options=options("system", str(stack_folder))), stack_folder)
    assert exposure(tool("systemd-analyze"), stack_folder / f"systemd/{unit}.service") <= limit


def unit(plan: Plan, name: str) -> str:
    return next(file.text for file in systemd.emit(plan, ()) if file.path == f"systemd/{name}.service")


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
