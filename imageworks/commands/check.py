"""`imageworks check`: every mistake of the stack in one run; with --fix the safe repairs are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imageworks.commands.console import fail, say
from imageworks.commands.pipeline import FORMATS, Compiled, compile_stack, layers_option, show_findings, summary

if TYPE_CHECKING:
    from imageworks.diagnostics.model import Diagnostic

MOST_ROUNDS = 20
"""Each round may uncover findings that the mistakes before hid; a stack that needs more is left to a person."""


@click.command("check", help="Find every mistake in stack.yaml, for all profiles; write nothing without --fix.")
@layers_option
@click.option("--format", "form", type=click.Choice(FORMATS), default="full", show_default=True)
@click.option("--fix", is_flag=True, help="First make the repairs marked `fix (safe)`; comments stay.")
def command(stack: tuple[Path, ...], form: str, fix: bool) -> int:
    """Exit 0 when the stack compiles, 1 when it does not."""
    compiled = compile_stack(stack)
    if fix:
        try:
            compiled = _fixed(compiled, lambda: compile_stack(stack))
        except OSError as error:
            return fail(f"cannot write {error.filename}: {error.strerror}", "no file was changed in part")
    show_findings(compiled.diagnostics, compiled.texts, form)
    if form == "full":
        _say_outcome(compiled)
    return 1 if compiled.failed else 0


def _say_outcome(compiled: Compiled) -> None:
    counted = summary(compiled.diagnostics)
    if compiled.failed:
        say(f"\n{counted}")
    else:
        say(f"{compiled.path.name}: {len(compiled.plans)} profiles compile{f' ({counted})' if counted else ''}")


def _fixed(compiled: Compiled, again: Callable[[], Compiled]) -> Compiled:
    """Make all safe repairs, as long as there are any; say each. Raises OSError."""
    from imageworks.diagnostics.fixes import repair

    for _ in range(MOST_ROUNDS):
        changes = {
            file: change
            for file, change in repair(compiled.diagnostics, compiled.texts).items()
            if _written(compiled.folder / file, compiled.texts[file], change.text)
        }
        if not changes:
            break
        for change in changes.values():
            _say_fixed(change.fixed)
        compiled = again()
    return compiled


def _written(file: Path, before: str, after: str) -> bool:
    """Replace the text `before` of `file`; False when the file says something else by now. Raises OSError."""
    from imageworks.commands.edit import MARK, replace

    data = file.read_bytes()
    mark = MARK if data.startswith(MARK) else b""
    if data != mark + before.encode():
        return False
    replace(file, data, mark + after.encode())
    return True


def _say_fixed(found: Sequence[Diagnostic]) -> None:
    from imageworks.diagnostics.model import Applicability

    for item in found:
        fix = next(fix for fix in item.fixes if fix.applicability is Applicability.SAFE and fix.edits)
        written = fix.edits[0].replacement.strip()
        span = fix.edits[0].span
        told = f"now {written}" if written else fix.text
        say(f"fixed {span.file}:{span.line}:{span.column} {item.code} {item.message}: {told}")
