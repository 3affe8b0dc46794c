"""`imageworks status`: what runs and which models are loaded."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imageworks.commands import client_key, here
from imageworks.commands.console import result, say
from imageworks.commands.pipeline import stack_option

if TYPE_CHECKING:
    from imageworks.commands.running import ProgramInfo


@click.command("status", help="What runs, and which models are loaded. Exit 1 when nothing runs.")
@stack_option
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(stack: Path, form: str) -> int:
    """Exit 0 when supervisord runs, 1 when it does not."""
    from imageworks.commands.lease import lease_line, leases_of
    from imageworks.commands.running import NotRunningError, Running
    from imageworks.commands.session import current_profile

    running = Running(stack.absolute().parent)
    profile = current_profile(running)
    try:
        programs = running.programs()
    except NotRunningError:
        found = f"not running in {running.folder}; start it: imageworks up"
        result(json.dumps({"running": False}) if form == "json" else found)
        return 1
    models, leases = residency(running.folder), leases_of(running.folder)
    if form == "json":
        data = {"running": True, "profile": profile, "programs": [asdict(row) for row in programs], "models": models}
        data["leases"] = leases
        result(json.dumps(data, indent=2, sort_keys=True))
    else:
        result(f"profile {profile}, supervisord pid {running.pid()}")
        result(_table(programs, models))
        for lease in leases:
            result(lease_line(lease))
    return 0


def residency(folder: Path) -> dict[str, Any]:
    """The proxy's own view of its models, keyed by program; empty when it does not answer."""
    table = here.routes(folder)
    if table is None:
        return {}
    try:
        connection = http.client.HTTPConnection(table["proxy"]["host"], table["proxy"]["port"], timeout=2)
        connection.request("GET", "/running", headers=client_key.headers())
        response = connection.getresponse()
        if response.status == http.HTTPStatus.UNAUTHORIZED:
            say(f"the proxy does not tell its models and leases; {client_key.HINT}")
            return {}
        models = json.loads(response.read())["running"]
        return {table["routes"][row["model"]]["program"] or row["model"]: row for row in models}
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return {}


def _table(programs: tuple[ProgramInfo, ...], models: dict[str, Any]) -> str:
    rows = [("program", "state", "pid", "since", "model")]
    for info in programs:
        since = _age(info.started) if info.state == "RUNNING" else "-"
        model = models.get(info.name)
        rows.append(
            (
                info.name,
                info.state.lower(),
                str(info.pid or "-"),
                since,
                f"{model['model']} {model['state']}" if model else "-",
            )
        )
    ours = {info.name for info in programs}
    for name, model in sorted(models.items()):
        if name not in ours:  # Ollama's, or another server's: no program of ours runs it
            rows.append(("-", "-", "-", "-", f"{model['model']} {model['state']}"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]) for row in rows
    )


def _age(started: int) -> str:
    seconds = max(0, int(time.time()) - started)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"
