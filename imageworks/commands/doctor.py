"""`imageworks doctor`: is this machine fit to run the stack, and is anything left over or known to be bad.

Looks only; every finding says what to do about it. Works before the first compile too, then with less to look at.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imageworks.commands.console import result
from imageworks.commands.pipeline import stack_option

if TYPE_CHECKING:
    from imageworks.commands.examine.finding import Finding

_SIGNS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "error": ("error", "red")}


@click.command("doctor", help="Check this machine: driver, ports, supervisor, leftovers, disk, limits, versions.")
@stack_option
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(stack: Path, form: str) -> int:
    """Exit 0 when there is no error, 1 when there is one; warnings do not count."""
    found = examine(stack.absolute().parent)
    sound = all(finding.level != "error" for finding in found)
    if form == "json":
        result(json.dumps({"ok": sound, "findings": [asdict(finding) for finding in found]}, indent=2, sort_keys=True))
    else:
        for finding in found:
            result(line(finding))
        result(summary(found))
    return 0 if sound else 1


def examine(folder: Path) -> tuple[Finding, ...]:
    """Everything that is found for the stack in `folder`."""
    from imageworks import locations
    from imageworks.commands import here
    from imageworks.commands.examine import gpus, machine, ports, proxy, supervision, versions
    from imageworks.commands.examine.finding import Finding
    from imageworks.contract import Root

    table = here.routes(folder)
    roots = {} if table is None else table.get("roots", {})
    tokens = locations.tokens(
        folder, {name: Root(root.get("env"), root["default"]) for name, root in roots.items()}, os.environ
    )
    found = [*gpus.check(folder), *supervision.check(folder)]
    if table is None:
        found.append(Finding("ports", "ok", "nothing was started here yet, so no port is known", ""))
    else:
        found += ports.check(folder, table)
    found += proxy.check(here.address(folder))
    found += machine.check({name: Path(tokens[name]) for name in ("state", "store", "models")})
    return (*found, *versions.check(table))


def line(finding: Finding) -> str:
    """One finding for a person, with what to do on a second line."""
    sign, colour = _SIGNS[finding.level]
    head = f"{click.style(sign.ljust(7), fg=colour)}  {finding.check}: {finding.found}"
    return f"{head}\n         = {finding.todo}" if finding.todo else head


def summary(found: tuple[Finding, ...]) -> str:
    """How many of each."""
    errors, warnings = (sum(finding.level == level for finding in found) for level in ("error", "warning"))
    return f"{errors} {'error' if errors == 1 else 'errors'}, {warnings} {'warning' if warnings == 1 else 'warnings'}"
