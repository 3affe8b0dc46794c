"""stack.yaml -> plans -> artifacts, for every verb that needs them.

Owns the order of the compiler's stages and how findings are shown; holds no judgement of its own.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from imageworks.commands.console import colour_wanted, result, say, unicode_wanted
from imageworks.values import dataclass

if TYPE_CHECKING:
    from imageworks import contract
    from imageworks.diagnostics.model import Diagnostic
    from imageworks.model.loaded import Loaded
    from imageworks.plan.ir import Plan
    from imageworks.source.files import Files
    from imageworks.targets.artifact import Artifact

STACK_FILE = "stack.yaml"
OUT = "generated"
LOCAL_OUT = ".imageworks/generated"
"""Where the files of a stack with a layer of this machine's own go: never into what is committed."""
GARBAGE_AFTER = 100_000
"""Allocations between two searches for cycles: compiling makes nearly none, and looking through all trees costs a tenth."""
FORMATS = ("full", "concise", "json", "github", "sarif")

Verb = TypeVar("Verb", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the compiler made of one stack file: plans of all profiles (empty on errors) and all findings."""

    path: Path
    loaded: Loaded | None
    plans: tuple[Plan, ...]
    diagnostics: tuple[Diagnostic, ...]
    texts: Mapping[str, str]
    out: str = OUT
    files: tuple[Path, ...] = ()
    """What `-f` named, absolute."""

    @property
    def local(self) -> tuple[str, ...]:
        """Dotted paths that this machine's own layer sets; empty without one."""
        return self.loaded.local if self.loaded is not None else ()

    @property
    def folder(self) -> Path:
        """The stack's folder, absolute."""
        return self.path.parent

    @property
    def roots(self) -> dict[str, contract.Root]:
        """The roots of a stack without errors."""
        from imageworks import contract

        assert self.loaded is not None
        declared = self.loaded.stack.roots
        return {name: contract.Root(root.env, root.default) for name, root in declared}

    @property
    def failed(self) -> bool:
        """True when at least one finding is an error."""
        return any(item.is_error for item in self.diagnostics)

    def plan(self, profile: str) -> Plan:
        """The plan of `profile`; KeyError when there is none."""
        return next(plan for plan in self.plans if plan.profile == profile)

    @property
    def profiles(self) -> tuple[str, ...]:
        """Names of the planned profiles."""
        return tuple(plan.profile for plan in self.plans)


def _named(context: click.Context, parameter: click.Parameter, stack: Path) -> Path:
    """A stack that somebody names must be there, also for verbs that only need its folder: a slip would ask another one.

    Without `-f` it is the folder that counts: what runs there can be stopped after stack.yaml is gone.
    """
    asked = context.get_parameter_source(parameter.name or "") is not ParameterSource.DEFAULT
    if asked and stack.is_dir():
        raise click.BadParameter(f"{stack} is a folder; name the file in it: {stack / STACK_FILE}")
    if asked and not stack.exists():
        raise click.BadParameter(f"{stack} is missing")
    return stack


def stack_option(verb: Verb) -> Verb:
    """The option `-f stack.yaml` of every verb that reads a stack."""
    return click.option(
        "-f",
        "--file",
        "stack",
        type=click.Path(path_type=Path, readable=False),
        callback=_named,
        default=STACK_FILE,
        show_default=True,
        help="The stack.",
    )(verb)


def layers_option(verb: Verb) -> Verb:
    """The repeatable option `-f a.yaml -f b.yaml` of verbs that compile: gives a tuple, later files win."""
    return click.option(
        "-f",
        "--file",
        "stack",
        type=click.Path(path_type=Path, readable=False),
        default=(STACK_FILE,),
        multiple=True,
        show_default=STACK_FILE,
        help="The stack; several are laid over each other, later ones win.",
    )(verb)


def compile_stack(stack: Path | Sequence[Path], out: str = OUT, *, local: bool = False) -> Compiled:
    """Run the whole front end and planner on `stack`; `out` is the folder of generated files relative to it.

    Of several files later ones win; the first one's folder is the stack's. With `local` stack.local.yaml, where there
    is one, lies above all.
    """
    from imageworks.source.files import DiskFiles

    path, *others = (one.absolute() for one in ([stack] if isinstance(stack, Path) else stack))
    names = [Path(os.path.relpath(other, path.parent)).as_posix() for other in others]
    return compile_files(path, DiskFiles(path.parent), path.parent.name, out, others=names, local=local)


def compile_here(stack: Path | Sequence[Path]) -> Compiled:
    """The stack as this machine runs it: with its own layer if there is one, whose files then go to the state folder."""
    from imageworks.model.layers import LOCAL

    first = stack if isinstance(stack, Path) else stack[0]
    own = (first.absolute().parent / LOCAL).exists()
    return compile_stack(stack, LOCAL_OUT if own else OUT, local=own)


def compile_files(
    path: Path,
    files: Files,
    folder_name: str,
    out: str = OUT,
    *,
    others: Sequence[str] = (),
    local: bool = False,
) -> Compiled:
    """The same for a stack read from `files`; `path` is where it would lie, `folder_name` its folder's name."""
    gc.set_threshold(GARBAGE_AFTER)
    from imageworks.model.load import load
    from imageworks.plan.resolve import resolve
    from imageworks.targets.registry import check

    outcome = load((path.name, *others), files, folder_name, local=local, plugins=plugin_names)
    plans: tuple[Plan, ...] = ()
    diagnostics = outcome.diagnostics
    if outcome.loaded is not None:
        plans, found = resolve(outcome.loaded, out)
        diagnostics = (*diagnostics, *found, *check(plans))
    named = (path, *(path.parent / other for other in others))
    return Compiled(path, outcome.loaded, plans, diagnostics, outcome.texts, out, named)


def plugin_names() -> frozenset[str]:
    """Names of the targets of installed packages; looking for them takes time, so only when a stack names one."""
    from imageworks.targets.plugins import names

    return names()


def artifacts(plans: Sequence[Plan], chosen: Sequence[str]) -> dict[str, tuple[Artifact, ...]]:
    """The files of the chosen profiles; every routing table carries the role tables of all."""
    from imageworks.targets.registry import emit_all

    return emit_all(plans, chosen)


def show_findings(diagnostics: Sequence[Diagnostic], texts: Mapping[str, str], form: str = "full") -> None:
    """Print findings: json and sarif on stdout (always, so that a reader gets a document), the others on stderr."""
    if not diagnostics and form not in {"json", "sarif"}:
        return
    from imageworks import __version__
    from imageworks.diagnostics import human, machine

    if form == "json":
        result(machine.json(diagnostics))
    elif form == "sarif":
        from imageworks.diagnostics.sarif import sarif

        result(sarif(diagnostics, __version__))
    elif form == "github":
        result(machine.github(diagnostics))
    else:
        colour = colour_wanted(sys.stderr.isatty())
        text = (
            human.concise(diagnostics)
            if form == "concise"
            else human.full(diagnostics, texts, colour=colour, unicode=unicode_wanted(sys.stderr.encoding))
        )
        say(text.rstrip("\n"))


def local_changes(compiled: Compiled) -> str:
    """`with 2 local changes: a, b` for a stack with a layer of this machine's own, else an empty text."""
    count = len(compiled.local)
    return f"with {count} local change{'s' if count > 1 else ''}: {', '.join(compiled.local)}" if count else ""


def summary(diagnostics: Sequence[Diagnostic]) -> str:
    """`2 errors, 1 warning`, or an empty text."""
    counts = {word: sum(item.severity.value == word for item in diagnostics) for word in ("error", "warning", "note")}
    return ", ".join(f"{count} {word}{'s' if count > 1 else ''}" for word, count in counts.items() if count)
