"""`imageworks profile`: which profiles there are, and which one this machine gets; `add` writes one for exactly it.

Looks at the hardware through NVML. `add` proves that the stack still compiles with the new layer before it writes
stack.local.yaml, the machine's own file, and never touches one that exists.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imageworks.commands.console import fail, result, say
from imageworks.commands.pipeline import (
    STACK_FILE,
    Compiled,
    compile_files,
    compile_stack,
    show_findings,
    summary,
)

if TYPE_CHECKING:
    from imageworks.commands.machine import Chosen
    from imageworks.model.stack import Profile
    from imageworks.plan.ir import Plan
    from imageworks.source.files import Files

NAME = "this-machine"


@click.group("profile", invoke_without_command=True)
@click.option(
    "-f", "--file", "stack", type=click.Path(path_type=Path, readable=False), default=STACK_FILE, show_default=True,
    help="The stack.",
)  # fmt: skip
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_context
def command(context: click.Context, stack: Path, form: str) -> int:
    """The hardware profiles of the stack, and which one this machine gets and why. Exit 0, or 1 when none can run."""
    if context.invoked_subcommand is not None:
        if form != "text":
            raise click.UsageError("--format belongs to the list of profiles")
        return 0
    from imageworks.commands.machine import UnknownProfileError, choose_profile
    from imageworks.commands.pipeline import compile_here

    compiled = _sound(compile_here(stack))
    if compiled is None or compiled.loaded is None:
        return 1
    try:
        chosen = choose_profile(compiled.loaded.stack.profiles, None)
    except UnknownProfileError as error:
        return fail(str(error))
    if form == "json":
        rows = [_row(plan, compiled.loaded.stack.profiles[plan.profile]) for plan in compiled.plans]
        machine = {"profile": chosen.profile, "gpus": list(chosen.uuids), "why": list(chosen.why)}
        result(json.dumps({"profiles": rows, "machine": machine}, indent=2, ensure_ascii=False))
    else:
        _tell(compiled, chosen)
    return 0


def _sound(compiled: Compiled) -> Compiled | None:
    """`compiled`; None after showing its errors."""
    if not compiled.failed:
        return compiled
    show_findings(compiled.diagnostics, compiled.texts)
    say(f"\n{summary(compiled.diagnostics)}")
    return None


def _row(plan: Plan, profile: Profile) -> dict[str, Any]:
    return {
        "name": plan.profile,
        "gpus": len(plan.devices),
        "budget_mib": [device.budget >> 20 for device in plan.devices],
        "host_mib": profile.host_memory >> 20,
        "strategy": profile.strategy,
        "max_concurrent_models": plan.policy.max_concurrent_models,
        "models": len(plan.models),
        "unplaced": len(plan.unplaced),
    }


def _tell(compiled: Compiled, chosen: Chosen) -> None:
    width = max(map(len, compiled.profiles))
    for plan in compiled.plans:
        mark = "*" if plan.profile == chosen.profile else " "
        gpus = " + ".join(f"{device.budget / (1 << 30):.1f}" for device in plan.devices)
        room = f"{gpus} GiB of GPU" if gpus else f"{plan.policy.host_memory / (1 << 30):.1f} GiB of host memory"
        count = f"{len(plan.models)} of {len(plan.models) + len(plan.unplaced)} models"
        result(f"{mark} {plan.profile.ljust(width)}  {room:<24} {count}, {plan.policy.strategy}")
    result(f"this machine gets {chosen.profile}")
    for line in chosen.why:
        result(f"  {line}")


@command.command("add", help="Write a profile for exactly the devices of this machine into stack.local.yaml.")
@click.option("--from-this-machine", is_flag=True, required=True, help="The devices that NVML shows here.")
@click.option("--name", default=NAME, show_default=True, help="The new profile.")
@click.option("--print", "only_print", is_flag=True, help="Print the lines instead of writing them.")
@click.option("-f", "--file", "stack", type=click.Path(path_type=Path), help=f"The stack; default: {STACK_FILE}.")
@click.pass_context
def add(context: click.Context, *, from_this_machine: bool, name: str, only_print: bool, stack: Path | None) -> int:
    """Exit 0, or 1 when there is no GPU, the file exists, or the stack would not compile with it."""
    del from_this_machine  # the only source so far; the flag says what is looked at
    above = context.parent.params["stack"] if context.parent is not None else STACK_FILE
    compiled = _sound(compile_stack(stack or Path(above)))
    if compiled is None:
        return 1
    text = _text(compiled, name)
    if text is None:
        return 1
    from imageworks.model.layers import LOCAL

    target = compiled.folder / LOCAL
    if only_print or target.exists():
        result(text.rstrip("\n"))
        return 0 if only_print else fail(f"{target} exists; put these lines into it")
    with target.open("x", encoding="utf-8") as file:
        file.write(text)
    say(f"wrote {LOCAL}: `imageworks up` uses it; compile and check do not read it")
    return 0


def _text(compiled: Compiled, name: str) -> str | None:
    """The layer, proved to compile; None after saying why there is none."""
    from imageworks.commands.machine import found_gpus
    from imageworks.plan.match import choose
    from imageworks.plan.own_profile import excused, own_profile

    assert compiled.loaded is not None
    profiles = compiled.loaded.stack.profiles
    gpus, notes = found_gpus()
    if not gpus:
        fail("no GPU here to write a profile for", *notes)
        return None
    if name in profiles:
        fail(f"the stack has a profile `{name}` already", "choose another with --name")
        return None
    choice = choose(profiles, gpus)
    base = profiles[choice.profile or next(iter(profiles))]
    text = own_profile(name, gpus, base)
    tried = _with(compiled, text)
    empty = [role for role in compiled.loaded.stack.roles if _is_empty(tried, role)]
    if empty:
        places = compiled.loaded.places
        text += excused(name, empty, {role: ("roles", role, "may_be_missing_on") in places for role in empty})
        tried = _with(compiled, text)
    return text if _sound(tried) is not None else None


def _is_empty(tried: Compiled, role: str) -> bool:
    return any(item.code == "IW402" and item.message.startswith(f"role `{role}`") for item in tried.diagnostics)


def _with(compiled: Compiled, layer: str) -> Compiled:
    from imageworks.source.files import DiskFiles

    files = _Layered(DiskFiles(compiled.folder), layer)
    return compile_files(compiled.path, files, compiled.folder.name, local=True)


class _Layered:
    """The stack's files with a machine's own layer that is not on the disk."""

    def __init__(self, below: Files, layer: str) -> None:
        self._below, self._layer = below, layer

    def read(self, name: str) -> bytes:
        """See `Files.read`."""
        from imageworks.model.layers import LOCAL

        return self._layer.encode() if name == LOCAL else self._below.read(name)

    def names(self, folder: str) -> tuple[str, ...]:
        """See `Files.names`."""
        return self._below.names(folder)
