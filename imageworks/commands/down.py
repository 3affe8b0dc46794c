"""`imageworks down`: stop the proxy, every model and supervisord; leave no process behind."""

from __future__ import annotations

from pathlib import Path

import click

from imageworks.commands.console import Step, fail, result
from imageworks.commands.pipeline import stack_option


@click.command("down", help="Stop the proxy, every model and supervisord itself.")
@stack_option
def command(stack: Path) -> int:
    """Exit 0 when nothing runs any more."""
    from imageworks.commands.running import NotRunningError, Running, sweep

    folder = stack.absolute().parent
    running = Running(folder)
    was_up = running.is_up()
    if was_up:
        with Step("stopping"):
            try:
                gone = running.shutdown()
            except NotRunningError:
                gone = True  # it ended between the two questions
        if not gone:
            return fail("supervisord does not end", f"its log: {running.log('supervisord')}")
    swept = sweep(folder)
    if swept:
        result(f"ended what had outlived its supervisor: {', '.join(swept)}")
    if not was_up and not swept:
        result(f"nothing was running in {folder}")
    return 0
