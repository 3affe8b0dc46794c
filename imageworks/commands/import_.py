"""`imageworks import`: a stack.yaml from another system's configuration, with a report of everything that changed.

The stack goes to stdout or into a new file, the report to stderr. Nothing that exists is ever overwritten.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imageworks.commands.console import fail, result, say

if TYPE_CHECKING:
    from imageworks.diagnostics.model import Diagnostic
    from imageworks.importers.draft import Imported
    from imageworks.source.text import SourceFile

out_option = click.option("-o", "--output", type=click.Path(path_type=Path), help="A new file; default: stdout.")
form_option = click.option(
    "--format", "form", type=click.Choice(("full", "concise", "json")), default="full", show_default=True
)


@click.group("import", help="Make a stack.yaml from another system's configuration; report what changed.")
def command() -> None:
    """Hold the sub-verbs."""


@command.command("registry")
@click.argument("curated", type=click.Path(path_type=Path))
@click.argument("discovered", type=click.Path(path_type=Path), required=False)
@out_option
@form_option
def registry(curated: Path, discovered: Path | None, output: Path | None, form: str) -> int:
    """From the model registries of the reference system; CURATED wins over DISCOVERED."""
    from imageworks.importers.registry import convert

    paths = [curated] if discovered is None else [curated, discovered]
    return _import(
        paths, lambda found: convert(found[0], found[1] if len(found) > 1 else None, _findings), output, form
    )


@command.command("llama-swap")
@click.argument("config", type=click.Path(path_type=Path))
@out_option
@form_option
def llama_swap(config: Path, output: Path | None, form: str) -> int:
    """From the YAML configuration of llama-swap."""
    from imageworks.importers.llama_swap import convert

    return _import([config], lambda found: convert(found[0], _findings), output, form)


def _import(paths: list[Path], convert: Callable[[list[SourceFile]], Imported], output: Path | None, form: str) -> int:
    """Read, convert, report, write."""
    from imageworks.commands.pipeline import show_findings, summary
    from imageworks.importers.draft import STACK

    if form == "json" and output is None:
        return fail("the report and the stack cannot both go to stdout", "name a file for the stack: -o stack.yaml")
    sources, unread = _read(paths)
    if unread:
        show_findings(unread, {}, form)
        return 1
    if output is not None and (output.exists() or output.is_symlink()):
        show_findings([_there(output)], {}, form)
        return 1
    imported = convert(sources)
    compiled = () if imported.text is None else _findings(imported.text)
    texts = {**imported.texts, STACK: imported.text or ""}
    show_findings([*imported.diagnostics, *compiled], texts, form)
    if imported.text is None:
        return 1
    if output is None:
        result(imported.text.rstrip("\n"))
    elif (problem := _write(output, imported.text)) is not None:
        return fail(problem)
    counted = summary([*imported.diagnostics, *compiled])
    if form != "json":
        say(f"\n{output or 'the stack'}: imported{f' ({counted})' if counted else ''}")
    return 1 if any(item.is_error for item in compiled) else 0


def _read(paths: list[Path]) -> tuple[list[SourceFile], list[Diagnostic]]:
    from imageworks.diagnostics.model import Diagnostic
    from imageworks.source.files import DiskFiles, decode

    sources: list[SourceFile] = []
    found: list[Diagnostic] = []
    for path in paths:
        try:
            data = DiskFiles(path.parent).read(path.name)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            found.append(Diagnostic("IW800", f"{path} cannot be read: {reason}", None))
            continue
        source, problems = decode(str(path), data)
        found += problems
        sources += [source] if source is not None else []
    return sources, found


def _there(output: Path) -> Diagnostic:
    from imageworks.diagnostics.model import Diagnostic, Fix

    return Diagnostic(
        "IW810", f"{output} is already there and stays as it is", None, fixes=(Fix("another name with -o"),)
    )


def _findings(text: str) -> tuple[Diagnostic, ...]:
    """What the whole compiler says of the text of a stack."""
    from imageworks.importers.draft import STACK
    from imageworks.model.load import load
    from imageworks.plan.resolve import resolve
    from imageworks.source.files import MemoryFiles

    outcome = load(STACK, MemoryFiles({STACK: text}), "imported")
    return outcome.diagnostics if outcome.loaded is None else (*outcome.diagnostics, *resolve(outcome.loaded)[1])


def _write(output: Path, text: str) -> str | None:
    """Write a new file; the reason when that is impossible."""
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        return f"cannot write {output}: {error.strerror or error}"
    return None
