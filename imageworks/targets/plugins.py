"""Targets of installed packages: entry points of the group `imageworks.targets`.

Owns how they are found (only when a stack names one), IW523 for one that cannot be used, IW524 for one name of two
packages, and the rules for their files: below a folder of their own name, relative, UTF-8, the same for the same plan.
What a plug-in raises is a finding about the plug-in, never a bug of ours.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from imageworks.diagnostics.model import Diagnostic, Fix, Label, Severity
from imageworks.plan.ir import Plan, Plugin
from imageworks.targets.artifact import Artifact, Target

GROUP = "imageworks.targets"
OURS = frozenset({"supervisord", "systemd", "vllm_scripts", "llama_swap"})
FOLDERS = frozenset({"exec", "systemd", "vllm"})
"""Folders that our own targets write."""
_PART = re.compile(r"[^\x00-\x1f\x7f/\\]+")
_RIGHTS = 0o777


class PluginError(Exception):
    """A plug-in cannot be used; the message says why, in one sentence."""


def names() -> frozenset[str]:
    """Names of all targets that installed packages provide."""
    return frozenset(point.name for point in _points(tuple(sys.path)))


@cache
def _points(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Entry points of the group, each distribution's once; `path` is what they were found on."""
    del path
    found = {(point.name, point.value, _package(point)): point for point in entry_points(group=GROUP)}
    return tuple(found[key] for key in sorted(found))


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unnamed package"


def check(plans: Sequence[Plan]) -> tuple[Diagnostic, ...]:
    """What is wrong with the plug-ins that `plans` name; each problem once, whatever the number of profiles."""
    named = {plugin.name: plugin for plan in plans for plugin in plan.options.plugins}
    if not named:
        return ()
    found = [_finding(problem, named[name]) for name in sorted(named) if (problem := _problem(name, plans))]
    return (*found, *_hidden())


def _problem(name: str, plans: Sequence[Plan]) -> tuple[str, str] | None:
    """Code and reason why the target `name` cannot be used."""
    points = [point for point in _points(tuple(sys.path)) if point.name == name]
    packages = " and ".join(map(_package, points))
    if len(points) > 1 or name in FOLDERS:
        own = "its folder is one of our own targets'" if name in FOLDERS else f"{packages} both provide it"
        return "IW524", own
    try:
        target = _loaded(name)
        for plan in plans:
            if plan.options.plugins and any(plugin.name == name for plugin in plan.options.plugins):
                _same_twice(_emitted(target, plan, plans), _emitted(target, plan, plans))
    except PluginError as error:
        return "IW523", f"{packages}: {error}"
    return None


def _finding(problem: tuple[str, str], plugin: Plugin) -> Diagnostic:
    code, reason = problem
    clash = code == "IW524"
    return Diagnostic(
        code,
        f"target `{plugin.name}` is taken" if clash else f"target `{plugin.name}` cannot be used",
        Label(plugin.span) if plugin.span else None,
        notes=(reason,),
        fixes=(
            Fix("uninstall one of them" if clash else "update or repair the package"),
            Fix(f"targets: {{{plugin.name}: {{enabled: false}}}}"),
        ),
    )


def _hidden() -> Iterator[Diagnostic]:
    """A package's target under a name of ours: it is never asked, which somebody should know."""
    for point in _points(tuple(sys.path)):
        if point.name in OURS:
            yield Diagnostic(
                "IW524",
                f"target `{point.name}` of {_package(point)} is never used",
                None,
                Severity.WARNING,
                notes=("the name is that of a target of ours",),
            )


def _loaded(name: str) -> Target:
    """The target `name`. Raises PluginError."""
    point = next((point for point in _points(tuple(sys.path)) if point.name == name), None)
    if point is None:
        raise PluginError("no installed package provides it")
    try:
        target = point.load()
    except (Exception, SystemExit) as error:
        raise PluginError(f"{point.value} cannot be loaded: {_told(error)}") from error
    if getattr(target, "NAME", None) != name or not callable(getattr(target, "emit", None)):
        raise PluginError(f"{point.value} is no target: it needs NAME = {name!r} and emit(plan, plans)")
    return cast("Target", target)


def _told(error: BaseException) -> str:
    """Type, text and place of what a plug-in raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
    where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{where}"


def emit(plan: Plan, plans: Sequence[Plan]) -> Iterator[Artifact]:
    """The files of all plug-ins of `plan`. Raises PluginError for what `check` reports."""
    for plugin in plan.options.plugins:
        yield from _emitted(_loaded(plugin.name), plan, plans)


def _emitted(target: Target, plan: Plan, plans: Sequence[Plan]) -> tuple[Artifact, ...]:
    try:
        files = tuple(target.emit(plan, plans))
    except (Exception, SystemExit) as error:
        raise PluginError(f"emit failed on {plan.profile}: {_told(error)}") from error
    seen: set[str] = set()
    for file in files:
        problem = _misfit(file, target.NAME)
        if problem is None and file.path in seen:
            problem = f"`{file.path}` is written twice"
        if problem is not None:
            raise PluginError(problem)
        seen.add(file.path)
    inside = next((path for path in seen if any(other.startswith(f"{path}/") for other in seen)), None)
    if inside is not None:
        raise PluginError(f"`{inside}` is a file and a folder")
    return files


def _misfit(file: Any, name: str) -> str | None:
    """Why `file`, whatever a plug-in gave, cannot be written; None when it can."""
    if not isinstance(file, Artifact):
        return f"emit gave {type(file).__name__}, not Artifact"
    path, text, mode = _values(file)
    folder, *inner = path.split("/") if isinstance(path, str) else [""]
    if folder != name or not inner or not all(_PART.fullmatch(part) and part not in {".", ".."} for part in inner):
        return f"{path!r} is not a file below `{name}/`"
    if not isinstance(text, str) or not _is_utf8(text):
        return f"`{path}` is not text that UTF-8 can carry"
    if not isinstance(mode, int) or mode & ~_RIGHTS or not mode & 0o400:
        return f"`{path}` has rights {mode!r}; 0o644 or 0o755 are usual"
    return None


def _values(file: Artifact) -> tuple[Any, Any, Any]:
    """The fields of `file`, of which a plug-in may have made anything."""
    return file.path, file.text, file.mode


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _same_twice(first: Iterable[Artifact], second: Iterable[Artifact]) -> None:
    if first != second:
        raise PluginError("it gave different files for one plan; what is committed could never be compared")
