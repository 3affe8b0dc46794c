"""From which profile a reading verb looks: flag > IMAGEWORKS_DEPLOYMENT_PROFILE > the last `up` here > development."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from imageworks.commands.console import fail, say
from imageworks.commands.pipeline import Compiled, compile_stack, show_findings, summary

if TYPE_CHECKING:
    from imageworks.plan.ir import Plan


def planned(stack: Path, flag: str | None) -> tuple[Compiled, Plan] | None:
    """Compile `stack` and take the plan to look at; None after showing what is wrong."""
    from imageworks.commands.machine import ENVIRONMENT
    from imageworks.commands.running import Running
    from imageworks.commands.session import current_profile

    compiled = compile_stack(stack)
    if compiled.failed:
        show_findings(compiled.diagnostics, compiled.texts)
        say(f"\n{summary(compiled.diagnostics)}")
        return None
    asked = flag or os.environ.get(ENVIRONMENT) or None
    name = asked or current_profile(Running(compiled.folder))
    if asked is not None and asked not in compiled.profiles:
        fail(f"no profile `{asked}`", f"profiles: {', '.join(compiled.profiles)}")
        return None
    if name not in compiled.profiles:
        name = "development" if "development" in compiled.profiles else compiled.profiles[0]
    return compiled, compiled.plan(name)
