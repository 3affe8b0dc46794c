"""The three layers side by side: what the stack means, what is generated, what runs.

Owns how `plan` and `apply` come to their one comparison and how it is shown, so that they cannot disagree. Writes
nothing.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click

from imageworks import contract
from imageworks.commands.actions import Action, Reason, Wanted, actions
from imageworks.commands.console import fail
from imageworks.commands.here import PROXY
from imageworks.commands.inforce import Seen, observe
from imageworks.commands.machine import ENVIRONMENT, Chosen, UnknownProfileError, choose_profile
from imageworks.commands.pipeline import Compiled, artifacts
from imageworks.commands.running import Running
from imageworks.output.write import Differences, check_generation
from imageworks.values import dataclass

_COLOURS = {"keep": None, "add": "green", "start": "green", "reload": "yellow", "restart": "yellow"}
_SHOWN_FILES, _SHOWN_REASONS, _SHOWN_TEXT = 12, 12, 72


@dataclass(frozen=True, slots=True)
class Comparison:
    """One profile in all three layers."""

    compiled: Compiled
    chosen: Chosen
    wanted: Wanted
    seen: Seen
    files: Differences
    actions: tuple[Action, ...]

    @property
    def changes(self) -> bool:
        """True when `apply` would do anything."""
        return bool(self.files) or any(action.verb != "keep" for action in self.actions)

    @property
    def switched_from(self) -> str | None:
        """The profile that runs, where it is not the one that was compared."""
        other = self.seen.profile if self.seen.up else None
        return other if other not in (None, self.chosen.profile) else None


def compare(compiled: Compiled, flag: str | None) -> Comparison | None:
    """Compare `compiled` with the disk and with what runs; None after saying why it cannot be done."""
    assert compiled.loaded is not None
    seen = observe(Running(compiled.folder), compiled.out)
    chosen = _chosen(compiled, seen, flag)
    if chosen is None:
        return None
    made = artifacts(compiled.plans, compiled.profiles)
    files = {file.path: file for file in made[chosen.profile]}
    wanted = Wanted(compiled.plan(chosen.profile), files, compiled.loaded)
    try:
        differing = check_generation(
            compiled.folder / compiled.out, made, compiled.loaded.inputs, known=compiled.profiles
        )
    except contract.ContractError as error:
        fail(str(error))
        return None
    except OSError as error:
        fail(f"cannot read {error.filename or compiled.out}: {error.strerror}")
        return None
    return Comparison(compiled, chosen, wanted, seen, differing, actions(wanted, seen))


def _chosen(compiled: Compiled, seen: Seen, flag: str | None) -> Chosen | None:
    """Flag > environment > what runs > what this machine matches."""
    assert compiled.loaded is not None
    asked = flag or os.environ.get(ENVIRONMENT)
    if not asked and seen.up and seen.profile in compiled.profiles:
        return Chosen(seen.profile or "", (), ("it runs",))
    try:
        return choose_profile(compiled.loaded.stack.profiles, flag)
    except UnknownProfileError as error:
        fail(str(error))
        return None


def document(found: Comparison) -> str:
    """The comparison as JSON."""
    files = found.files
    data: dict[str, Any] = {
        "schema": 1,
        "profile": found.chosen.profile,
        "plan_hash": found.wanted.plan.hash,
        "running": {"up": found.seen.up, "profile": found.seen.profile, "plan_hash": found.seen.plan_hash},
        "files": {"missing": files.missing, "stale": files.stale, "changed": sorted(files.changed or {})},
        "programs": [asdict(action) for action in found.actions],
        "changes": found.changes,
    }
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, default=str)


def text(found: Comparison) -> str:
    """The comparison for a person."""
    running = f", running {found.seen.plan_hash[:12]}" if found.seen.plan_hash else ""
    head = (
        f"profile {found.chosen.profile} ({'; '.join(found.chosen.why)}), plan {found.wanted.plan.hash[:12]}{running}"
    )
    return "\n".join([head, *_files(found), *_programs(found)])


def _files(found: Comparison) -> Iterator[str]:
    """The files of the profile that was compared by name, those of the others by number."""
    files, out = found.files, found.compiled.out
    paths = dict.fromkeys(files.missing, "missing") | dict.fromkeys(files.stale, "stale")
    paths |= dict.fromkeys(files.changed or (), "differs")
    own = sorted(path for path in paths if path.startswith((f"{found.chosen.profile}/", "../")))
    yield f"{out}: {f'{len(paths)} files are not what the stack means' if paths else 'up to date'}"
    for path in own[:_SHOWN_FILES]:
        yield f"  {paths[path]:8} {posixpath.normpath(f'{out}/{path}')}"
    if len(own) > _SHOWN_FILES:
        yield f"  and {len(own) - _SHOWN_FILES} more of this profile: imageworks compile --check"
    if len(paths) > len(own):
        yield f"  and {len(paths) - len(own)} of other profiles"


def _programs(found: Comparison) -> Iterator[str]:
    yield "programs:" if found.seen.up else "programs: nothing runs"
    width = max(len(action.program) for action in found.actions) if found.actions else 0
    for action in found.actions:
        verb = click.style(f"{action.verb:8}", fg=_COLOURS.get(action.verb, "red"))
        yield f"  {verb} {action.program:{width}}  {action.state}{_busy(found, action)}".rstrip()
        yield from _reasons(action.reasons)


def _busy(found: Comparison, action: Action) -> str:
    if action.verb == "keep" or not (action.load.in_flight or action.load.waiting):
        return ""
    flying, waiting = action.load.in_flight, action.load.waiting
    drain = found.wanted.plan.proxy.drain_s
    stays = action.program == PROXY and action.verb == "reload"
    end = f"{flying} in flight, which may finish{'' if stays else f' within {drain:g} s'}" if flying else ""
    return ", " + ", ".join(filter(None, (end, f"{waiting} waiting, to be asked again" if waiting else "")))


def _reasons(reasons: Sequence[Reason]) -> Iterator[str]:
    for reason in reasons[:_SHOWN_REASONS]:
        change = "" if reason.old is None and reason.new is None else f"  {_side(reason.old)} -> {_side(reason.new)}"
        yield f"      {reason.field}{change}{f'  ({reason.at})' if reason.at else ''}"
    if len(reasons) > _SHOWN_REASONS:
        yield f"      and {len(reasons) - _SHOWN_REASONS} more: --format json"


def _side(value: object) -> str:
    if value is None:
        return "nothing"
    line = ", ".join(str(item) for item in value) if isinstance(value, list | tuple) else str(value)
    return line if len(line) <= _SHOWN_TEXT else f"{line[: _SHOWN_TEXT - 1]}…"
