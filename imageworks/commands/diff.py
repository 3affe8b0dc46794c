"""`imageworks diff OLD NEW`: what two stacks, or two revisions of one, say differently, and what that does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from imageworks.commands.console import fail, result, say
from imageworks.commands.pipeline import STACK_FILE, Compiled, show_findings, summary

if TYPE_CHECKING:
    from imageworks.plan.stack_diff import Difference, Effect

EXIT_DIFFERENCES = 2


@click.command(
    "diff",
    help="How two stacks differ, key by key, and what it does. OLD and NEW are files, folders or git revisions"
    " such as `HEAD~1:` and `main:stack.yaml`. Exit 2 on differences.",
)
@click.argument("old")
@click.argument("new", default=STACK_FILE)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(old: str, new: str, form: str) -> int:
    """Exit 0 when both mean the same, 2 on differences, 1 on findings."""
    from imageworks.plan.stack_diff import Side, differences, effects

    sides = []
    for name in (old, new):
        compiled = _compiled(name, form)
        if compiled is None or compiled.loaded is None:
            return 1
        sides.append(compiled)
    before, after = (Side(side.loaded, side.texts) for side in sides if side.loaded is not None)
    found = differences(before, after)
    both = [name for name in sides[0].profiles if name in sides[1].profiles]
    done = {name: effects(sides[0].plan(name), sides[1].plan(name)) for name in both}
    done = {name: told for name, told in done.items() if told}
    result(_document(found, done) if form == "json" else _text(found, done))
    return EXIT_DIFFERENCES if found or done else 0


def _compiled(name: str, form: str) -> Compiled | None:
    """Compile what `name` means; None after showing why not."""
    from imageworks.commands.pipeline import compile_files
    from imageworks.commands.revision import RevisionError, find

    try:
        place = find(name)
    except RevisionError as error:
        fail(str(error))
        return None
    compiled = compile_files(place.path, place.files, place.name)
    if compiled.failed:
        show_findings(compiled.diagnostics, compiled.texts, "json" if form == "json" else "full")
        say(f"\n{name}: {summary(compiled.diagnostics)}; nothing was compared")
        return None
    return compiled


def _document(found: Sequence[Difference], done: Mapping[str, Sequence[Effect]]) -> str:
    rows: list[dict[str, Any]] = [asdict(one) | {"path": ".".join(one.path)} for one in found]
    effects = {name: [asdict(effect) for effect in told] for name, told in done.items()}
    return json.dumps({"schema": 1, "stack": rows, "effects": effects}, indent=2, sort_keys=True, ensure_ascii=False)


def _text(found: Sequence[Difference], done: Mapping[str, Sequence[Effect]]) -> str:
    if not found and not done:
        return "both mean the same"
    return "\n".join([*_keys(found), *_effects(done)])


def _keys(found: Sequence[Difference]) -> Iterator[str]:
    """By section and entry: `models.small`, then its keys."""
    for head, group in groupby(found, key=lambda one: one.path[:2]):
        members = list(group)
        if members[0].path == head:
            yield _line(".".join(head), members[0])
            continue
        yield ".".join(head)
        width = max(len(".".join(one.path[2:])) for one in members)
        for one in members:
            yield "  " + _line(".".join(one.path[2:]).ljust(width), one)


def _line(name: str, one: Difference) -> str:
    if one.old is None or one.new is None:
        sign, words, at = ("+", one.new, one.at_new) if one.old is None else ("-", one.old, one.at_old)
        text = click.style(f"{sign} {name}  {words}", fg="green" if sign == "+" else "red")
    else:
        at = one.at_new or one.at_old
        text = f"{name}  {one.old} -> {one.new}"
    return f"{text}  ({at.file}:{at.line})" if at else text


def _effects(done: Mapping[str, Sequence[Effect]]) -> Iterator[str]:
    """Effects, once for all profiles that share them."""
    for told in dict.fromkeys(tuple(effects) for effects in done.values()):
        names = [name for name, effects in done.items() if tuple(effects) == told]
        yield f"on {', '.join(names)}:"
        for effect in told:
            yield f"  {effect.what}  {effect.old or 'nothing'} -> {effect.new or 'nothing'}"
