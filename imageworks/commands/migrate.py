"""`imageworks migrate`: files of an older version of the language, brought to the current one; comments stay."""

from __future__ import annotations

from pathlib import Path

import click

from imageworks.commands.console import fail, result, say
from imageworks.commands.pipeline import STACK_FILE, show_findings

EXIT_DIFFERENCES = 2


@click.command(
    "migrate", help="Bring FILES (default: stack.yaml) to the current version of the language; comments stay."
)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Write nothing; show the changes and exit 2 when there are any.")
def command(files: tuple[Path, ...], check: bool) -> int:
    """Exit 0 when every file is current (now), 1 when one cannot be read, migrated or written, 2 with --check."""
    codes = [_one(file, check) for file in files or (Path(STACK_FILE),)]
    return 1 if 1 in codes else max(codes)


def _one(file: Path, check: bool) -> int:
    from imageworks.commands.edit import MARK, UnreadableError, read_source, replace
    from imageworks.model.migrations import CURRENT, migrated

    try:
        before = read_source(file)
    except UnreadableError as error:
        show_findings(error.diagnostics, error.texts)
        return 1
    made = migrated(before.source)
    if made.text is None:
        show_findings(made.diagnostics, {before.source.name: before.source.text})
        return fail(f"{file} stays as it is")
    if not made.steps:
        say(f"{file} is of version {CURRENT}, the current one")
        return 0
    if check:
        result(_diff(file, before.source.text, made.text))
        return EXIT_DIFFERENCES
    mark = MARK if before.data.startswith(MARK) else b""
    try:
        replace(file, before.data, mark + made.text.encode())
    except OSError as error:
        return fail(f"cannot write {file}: {error.strerror or error}", "what was there before is unchanged")
    say(f"migrated {file} to version {CURRENT}: {'; '.join(made.steps)}")
    return 0


def _diff(file: Path, before: str, after: str) -> str:
    import difflib

    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), str(file), f"{file} (migrated)", lineterm="")
    return "\n".join(lines)
