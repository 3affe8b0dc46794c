"""`imageworks fmt`: stack.yaml in its one layout; comments and meaning stay."""

from __future__ import annotations

from pathlib import Path

import click

from imageworks.commands.console import fail, say
from imageworks.commands.pipeline import STACK_FILE, show_findings

EXIT_DIFFERENCES = 2


@click.command("fmt", help="Lay FILES (default: stack.yaml) out evenly: two blanks a level, no stray blanks or lines.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Write nothing; exit 2 when a file would change.")
def command(files: tuple[Path, ...], check: bool) -> int:
    """Exit 0 when every file has the layout (now), 1 when one cannot be read or written, 2 with --check."""
    codes = [_one(file, check) for file in files or (Path(STACK_FILE),)]
    return 1 if 1 in codes else max(codes)


def _one(file: Path, check: bool) -> int:
    from imageworks.commands.edit import UnreadableError, read_source, replace
    from imageworks.source.format import formatted

    try:
        before = read_source(file)
    except UnreadableError as error:
        show_findings(error.diagnostics, error.texts)
        return 1
    made = formatted(before.source)
    if made.text is None:
        show_findings(made.diagnostics, {before.source.name: before.source.text})
        why = "it has to be readable first" if made.diagnostics else "its meaning would change"
        return fail(f"{file} stays as it is: {why}", "imageworks check --fix repairs what is safe to repair")
    if made.text.encode() == before.data:
        return 0
    if check:
        say(f"{file} has another layout; run: imageworks fmt {file}")
        return EXIT_DIFFERENCES
    try:
        replace(file, before.data, made.text.encode())
    except OSError as error:
        return fail(f"cannot write {file}: {error.strerror or error}", "what was there before is unchanged")
    say(f"formatted {file}")
    return 0
