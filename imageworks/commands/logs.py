"""`imageworks logs [PROGRAM]`: what a program printed; -f goes on until Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections import deque
from pathlib import Path

import click

from imageworks import locations
from imageworks.commands.console import fail
from imageworks.commands.pipeline import stack_option

POLL_S = 0.2


@click.command("logs", help="Show the last lines of a program's log. Without PROGRAM: the proxy's.")
@click.argument("program", default="imageworks-proxy")
@stack_option
@click.option("-n", "--lines", type=click.IntRange(min=0), default=40, show_default=True, help="How many lines.")
@click.option("--follow", "-F", is_flag=True, help="Go on printing what comes.")
def command(program: str, stack: Path, lines: int, follow: bool) -> int:
    """A model may be named by its id (`smollm2-135m`) or by its program (`model-smollm2-135m`)."""
    folder = locations.log_dir(stack.absolute().parent)
    there = _programs(folder)
    names = (program, f"model-{program.replace('.', '-').replace('_', '-')}")
    path = next((folder / f"{name}.log" for name in names if name in there), None)
    if path is None:
        return fail(
            f"no log of `{program}` in {folder}",
            f"there are: {', '.join(there)}" if there else "nothing was started yet: imageworks up",
        )
    with path.open(encoding="utf-8", errors="replace") as log:
        sys.stdout.writelines(deque(log, maxlen=lines))
        while follow:
            sys.stdout.writelines(log)
            sys.stdout.flush()
            time.sleep(POLL_S)
    return 0


def _programs(folder: Path) -> list[str]:
    """Names of the programs that have a log in `folder`."""
    try:
        return sorted(file.stem for file in folder.iterdir() if file.suffix == ".log")
    except FileNotFoundError:
        return []
