"""`imageworks compile`: write generated/, or with --check say how it differs from what the stack means."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imageworks.commands.console import fail, result, say
from imageworks.commands.pipeline import (
    FORMATS,
    OUT,
    Compiled,
    artifacts,
    compile_stack,
    layers_option,
    local_changes,
    show_findings,
    summary,
)

if TYPE_CHECKING:
    from imageworks.output.write import Differences

EXIT_DIFFERENCES = 2


@click.command("compile", help="Turn stack.yaml into the files under generated/, one folder per profile.")
@layers_option
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="Only this profile (repeatable).")
@click.option("--all", "everything", is_flag=True, help="All profiles (the default).")
@click.option("--out", default=OUT, show_default=True, metavar="DIR", help="Where to write, relative to the stack.")
@click.option("--local", is_flag=True, help="With stack.local.yaml, as `up` does; needs a --out of its own.")
@click.option("--check", is_flag=True, help="Write nothing; exit 2 when generated/ is not what the stack means.")
@click.option("--overwrite", is_flag=True, help="Replace generated files that were edited by hand.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="full", show_default=True)
def command(
    stack: tuple[Path, ...],
    profiles: tuple[str, ...],
    everything: bool,
    out: str,
    local: bool,
    check: bool,
    overwrite: bool,
    form: str,
) -> int:
    """Exit 0 when written (or equal), 1 on findings, 2 on differences with --check."""
    if everything and profiles:
        return fail("--all and --profile exclude each other", "leave out --all")
    relative = _inside(stack[0], out)
    if relative is None:
        return fail(
            f"--out {out} lies outside the stack's folder",
            "generated files name the stack by a relative way; choose a folder inside",
        )
    if local and relative == OUT:
        return fail(f"--local would make {OUT}/ differ on every machine", "name another folder: --local --out DIR")
    compiled = compile_stack(stack, relative, local=local)
    show_findings(compiled.diagnostics, compiled.texts, form)
    if compiled.failed:
        if form == "full":
            say(f"\n{summary(compiled.diagnostics)}; nothing was written")
        return 1
    unknown = [name for name in profiles if name not in compiled.profiles]
    if unknown:
        return fail(f"no profile `{unknown[0]}` in {stack[0]}", f"profiles: {', '.join(compiled.profiles)}")
    chosen = profiles or compiled.profiles
    if compiled.local:
        say(local_changes(compiled))
    return _compare(compiled, relative, chosen) if check else write(compiled, relative, chosen, overwrite=overwrite)


def write(compiled: Compiled, out: str, chosen: Sequence[str], *, overwrite: bool = False) -> int:
    """Write the chosen profiles and the state folder; say what changed. Returns the exit code."""
    from imageworks.output.state import prepare_state
    from imageworks.output.write import write_generation

    assert compiled.loaded is not None
    report = write_generation(
        compiled.folder / out,
        artifacts(compiled.plans, chosen),
        compiled.loaded.inputs,
        overwrite=overwrite,
        known=compiled.profiles,
    )
    found = report.diagnostics or prepare_state(compiled.folder, sys.executable)
    if found:
        show_findings(found, compiled.texts)
        return 1
    for verb, paths in (("wrote", report.written), ("removed", report.removed)):
        if paths:
            say(f"{verb} {len(paths)} file{'s' if len(paths) > 1 else ''} under {out}/")
    if not report.written and not report.removed:
        say(f"{out}/ is up to date ({len(report.unchanged)} files)")
    return 0


def _compare(compiled: Compiled, out: str, chosen: Sequence[str]) -> int:
    from imageworks.output.write import check_generation

    assert compiled.loaded is not None
    differences: Differences = check_generation(
        compiled.folder / out, artifacts(compiled.plans, chosen), compiled.loaded.inputs, known=compiled.profiles
    )
    if not differences:
        say(f"{out}/ is up to date")
        return 0
    result(differences.text())
    say(f"{out}/ is not what {compiled.path.name} means; run: imageworks compile")
    return EXIT_DIFFERENCES


def _inside(stack: Path, out: str) -> str | None:
    """`out` as a way from the stack's folder downwards, with `/`; None when it leads elsewhere."""
    folder = stack.absolute().parent.resolve()
    try:
        relative = (folder / out).resolve().relative_to(folder)
    except ValueError:
        return None
    return relative.as_posix() if relative.parts else None
