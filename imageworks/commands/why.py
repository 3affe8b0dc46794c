"""`imageworks why PATH`: where a value comes from, what it stands over, and what the plan makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imageworks.commands.console import fail, result
from imageworks.commands.perspective import compiled_here, plan_to_look_at
from imageworks.commands.pipeline import Compiled, layers_option

if TYPE_CHECKING:
    from imageworks.commands.derived import Derived
    from imageworks.commands.origin import Origin, Written
    from imageworks.diagnostics.model import Span


@click.command("why", help="Where the value at PATH comes from, such as models.qwen.context; with the plan's reasons.")
@click.argument("path")
@layers_option
@click.option(
    "--profile", metavar="NAME", help="Hardware profile; default: that of PATH, of the last `up`, development."
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(path: str, stack: tuple[Path, ...], profile: str | None, form: str) -> int:
    """Exit 0, or 1 when the stack does not compile or has no such path."""
    from imageworks.commands.derived import DERIVED, derived
    from imageworks.commands.origin import origin
    from imageworks.model.paths import Unknown, children, dotted, find

    compiled = compiled_here(stack)
    if compiled is None:
        return 1
    assert compiled.loaded is not None
    first = plan_to_look_at(compiled, profile or _profile_of(path, compiled))
    if first is None:
        return 1
    view = compiled.loaded.on(first.profile)
    below = children(view.places)
    found = find(path, below, DERIVED)
    if isinstance(found, Unknown):
        return _unknown(found)
    where = origin(view, compiled.texts, found, first.profile, below)
    follows = derived(first, found)
    if form == "json":
        data = {
            "path": dotted(found),
            "profile": first.profile,
            **_origin(where),
            "derived": [_derived(item) for item in follows],
        }
        result(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        result("\n".join([*_lines(where), *_follows(follows, first.profile)]))
    return 0


def _profile_of(path: str, compiled: Compiled) -> str | None:
    """The profile that a path below `profiles` speaks of."""
    rest = path.removeprefix("profiles.") if path.startswith("profiles.") else ""
    return next((name for name in compiled.profiles if rest == name or rest.startswith(f"{name}.")), None)


def _unknown(found: object) -> int:
    from imageworks.model.paths import Unknown, dotted

    assert isinstance(found, Unknown)
    where = f" in {dotted(found.reached)}" if found.reached else ""
    if found.near:
        return fail(f"no `{found.part}`{where}", f"did you mean `{dotted((*found.reached, found.near))}`?")
    return fail(f"no `{found.part}`{where}", f"there is: {', '.join(found.known)}" if found.known else "it is a value")


def _lines(where: Origin) -> Iterator[str]:
    yield _line("", where.value)
    for below in where.over:
        yield _line("  over  ", below)
    for variable in where.variables:
        yield _line(f"  {variable.path} = ", variable, named=False)


def _line(head: str, written: Written, *, named: bool = True) -> str:
    parts = [f"{head}{written.text}", _place(written.span)]
    if written.path and named:
        parts.append(f"from {written.path}")
    if written.comment:
        parts.append(f'"{written.comment}"')
    return "   ".join(part for part in parts if part)


def _place(span: Span | None) -> str:
    from imageworks.model.loaded import BUILT_IN

    if span is None:
        return ""
    return "built in" if span.file == BUILT_IN else f"{span.file}:{span.line}:{span.column}"


def _follows(items: tuple[Derived, ...], profile: str) -> Iterator[str]:
    from imageworks.commands.show import sum_lines

    for item in items:
        yield f"  {item.name} on {profile}: {item.value}   {item.why}"
        yield from (f"  {line}" for line in sum_lines(item.memory))


def _origin(where: Origin) -> dict[str, Any]:
    return {
        **_written(where.value),
        "over": [_written(item) for item in where.over],
        "variables": [_written(item) for item in where.variables],
    }


def _written(item: Written) -> dict[str, Any]:
    span = item.span
    place = None if span is None else {"file": span.file, "line": span.line, "column": span.column}
    return {"value": item.text, "place": place, "comment": item.comment, "from": item.path}


def _derived(item: Derived) -> dict[str, Any]:
    terms = [
        {"name": term.name, "bytes": term.bytes, "origin": term.origin, "why": term.why} for term in item.memory.terms
    ]
    return {"name": item.name, "value": item.value, "why": item.why, "terms": terms}
