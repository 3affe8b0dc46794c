"""From which profile a reading verb looks: flag > IMAGEWORKS_DEPLOYMENT_PROFILE > the last `up` here > development."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imageworks.commands.console import fail, say
from imageworks.commands.pipeline import Compiled, compile_here, local_changes, show_findings, summary

if TYPE_CHECKING:
    from imageworks.plan.ir import Plan


def planned(stack: Sequence[Path], flag: str | None) -> tuple[Compiled, Plan] | None:
    """Compile `stack`, with this machine's own layer, and take the plan to look at; None after showing what is wrong."""
    compiled = compiled_here(stack)
    plan = None if compiled is None else plan_to_look_at(compiled, flag)
    return None if compiled is None or plan is None else (compiled, plan)


def compiled_here(stack: Sequence[Path]) -> Compiled | None:
    """Compile `stack`, with this machine's own layer; None after showing what is wrong."""
    compiled = compile_here(stack)
    if compiled.failed:
        show_findings(compiled.diagnostics, compiled.texts)
        say(f"\n{summary(compiled.diagnostics)}")
        return None
    if compiled.local:
        say(local_changes(compiled))
    return compiled


def plan_to_look_at(compiled: Compiled, flag: str | None) -> Plan | None:
    """The plan of the profile that is asked for or runs here; None after saying that there is none."""
    from imageworks.commands.machine import ENVIRONMENT
    from imageworks.commands.running import Running
    from imageworks.commands.session import current_profile

    asked = flag or os.environ.get(ENVIRONMENT) or None
    name = asked or current_profile(Running(compiled.folder))
    if asked is not None and asked not in compiled.profiles:
        fail(f"no profile `{asked}`", f"profiles: {', '.join(compiled.profiles)}")
        return None
    if name not in compiled.profiles:
        name = "development" if "development" in compiled.profiles else compiled.profiles[0]
    return compiled.plan(name)
