"""`imageworks check`: every mistake of the stack in one run; nothing is written."""

from __future__ import annotations

from pathlib import Path

import click

from imageworks.commands.pipeline import FORMATS, compile_stack, show_findings, stack_option, summary


@click.command("check", help="Find every mistake in stack.yaml, for all profiles; write nothing.")
@stack_option
@click.option("--format", "form", type=click.Choice(FORMATS), default="full", show_default=True)
def command(stack: Path, form: str) -> int:
    """Exit 0 when the stack compiles, 1 when it does not."""
    from imageworks.commands.console import say

    compiled = compile_stack(stack)
    show_findings(compiled.diagnostics, compiled.texts, form)
    if form == "full":
        counted = summary(compiled.diagnostics)
        if compiled.failed:
            say(f"\n{counted}")
        else:
            say(f"{stack}: {len(compiled.plans)} profiles compile{f' ({counted})' if counted else ''}")
    return 1 if compiled.failed else 0
