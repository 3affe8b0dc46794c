"""`imageworks plan`: what `imageworks apply` would do, and why; writes nothing and asks nobody to change anything."""

from __future__ import annotations

from pathlib import Path

import click

from imageworks.commands.console import result, say
from imageworks.commands.pipeline import compile_here, layers_option, local_changes, show_findings, summary

EXIT_DIFFERENCES = 2


@click.command("plan", help="Compare stack.yaml with generated/ and with what runs; write nothing. Exit 2 on changes.")
@layers_option
@click.option("--profile", metavar="NAME", help="Hardware profile; default: the one that runs, else what matches.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(stack: tuple[Path, ...], profile: str | None, form: str) -> int:
    """Exit 0 when nothing would change, 2 on changes, 1 on findings."""
    from imageworks.commands.comparison import compare, document, text

    compiled = compile_here(stack)
    if compiled.failed:
        show_findings(compiled.diagnostics, compiled.texts, "json" if form == "json" else "full")
        say(f"\n{summary(compiled.diagnostics)}; nothing was compared")
        return 1
    if compiled.local:
        say(local_changes(compiled))
    found = compare(compiled, profile)
    if found is None:
        return 1
    result(document(found) if form == "json" else text(found))
    if form == "text" and found.switched_from:
        say(f"profile {found.switched_from} runs; to change it: imageworks down && imageworks up --profile NAME")
    elif form == "text":
        say("to do this: imageworks apply" if found.changes else "nothing to do")
    return EXIT_DIFFERENCES if found.changes else 0
