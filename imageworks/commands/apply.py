"""`imageworks apply`: make what runs be what stack.yaml means, touching only what changed; go back when it fails.

Order: compile, weights, validate with the consumers' parsers, write, then `rollout`. The generation that served is
kept under .imageworks/previous and put back when the new one does not become healthy.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imageworks import locations
from imageworks.commands.console import Step, fail, result, say
from imageworks.commands.duration import seconds
from imageworks.commands.pipeline import layers_option

if TYPE_CHECKING:
    from imageworks.commands.comparison import Comparison
    from imageworks.commands.rollout import RolloutError
    from imageworks.commands.running import Running

WAIT_S = 30.0  # as in the default of --wait
_PROXY_WORK = {
    True: "reloading the proxy, replacing what changed, waiting for health",
    False: "draining the proxy, restarting what changed, waiting for health",
}


@click.command("apply", help="Make what runs be what stack.yaml means; restart only what changed, go back on failure.")
@layers_option
@click.option("--profile", metavar="NAME", help="Hardware profile; default: the one that runs, else what matches.")
@click.option(
    "--wait", callback=seconds, default="30s", show_default=True, metavar="TIME", help="How long health may take."
)
def command(stack: tuple[Path, ...], profile: str | None, wait: float) -> int:
    """Exit 0 when everything runs as the stack says, 1 when it does not; then what ran before runs again."""
    from imageworks.commands.comparison import compare, text
    from imageworks.commands.weights import compile_with_facts

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    compiled = compile_with_facts(stack, "nothing was changed")
    if compiled is None:
        return 1
    with _alone(compiled.folder):
        found = compare(compiled, profile)
        if found is None:
            return 1
        if found.switched_from:
            return fail(
                f"profile {found.switched_from} runs, and {found.chosen.profile} was asked for",
                "another profile restarts everything: imageworks down && imageworks up -d --profile NAME",
            )
        if _elsewhere(found):
            return fail(
                f"what runs was not started from {compiled.out}/: stack.local.yaml came or went since then",
                "other files restart everything: imageworks down && imageworks up -d",
            )
        result(text(found))
        return _apply(found, profile, wait)


def _elsewhere(found: Comparison) -> bool:
    """True when the proxy was started from another folder of generated files than the one that would be written."""
    from imageworks.commands.here import PROXY

    started = found.seen.started.get(PROXY)
    return started is not None and not started.file.is_relative_to(found.compiled.folder / found.compiled.out)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One apply at a time; a second one waits and then finds nothing to do."""
    from imageworks.locations import run_dir
    from imageworks.output import swap

    if run_dir(folder).is_dir():
        with swap.locked(run_dir(folder)):
            yield
    else:  # never started: nothing to disturb
        yield


def _apply(found: Comparison, profile: str | None, wait: float) -> int:
    from imageworks.commands.session import SessionError
    from imageworks.commands.validate import complaints
    from imageworks.commands.weights import fetch_packages
    from imageworks.store.package import StoreError

    if not found.changes:
        say("nothing to do")
        return 0
    if not found.seen.up:
        return _start(found, profile)
    refused = complaints(found.wanted.plan, found.wanted.files)
    if refused:
        return fail("the generated files would not be accepted; nothing was changed", *refused)
    try:
        _require_address(found)
        fetch_packages(model.package for model in found.wanted.plan.models)
    except SessionError as error:
        return fail(str(error), *error.then, "nothing was changed")
    except StoreError as error:
        return fail(str(error), "nothing was changed")
    return _change(found, wait)


def _require_address(found: Comparison) -> None:
    """Raise SessionError when the proxy is to move to an address that something else holds."""
    from imageworks.commands.session import require_port

    proxy, served = found.wanted.plan.proxy, found.seen.served
    if served is not None and served.address != (proxy.host, proxy.port):
        require_port(proxy.host, proxy.port)


def _start(found: Comparison, profile: str | None) -> int:
    """Nothing runs: that is what `up -d` is for, asked for the same profile."""
    from imageworks.commands import up

    start = up.command.callback
    assert start is not None
    code: int = start(stack=found.compiled.files, profile=profile, detach=True, question=None, once=False)
    return code


def _change(found: Comparison, wait: float) -> int:
    """Write and bring into force; on any failure, an interrupt too, go back."""
    from imageworks.commands import kept
    from imageworks.commands.compile import write
    from imageworks.commands.rollout import RolloutError, bring_into_force
    from imageworks.commands.running import Running

    stack = found.compiled.folder
    running, folder = Running(stack), stack / found.compiled.out / found.chosen.profile
    known, reload = _keep_what_serves(found, folder), _reloads(found)
    code = write(found.compiled, found.compiled.out, found.compiled.profiles)
    if code or all(action.verb == "keep" for action in found.actions):
        return code
    try:
        with Step(_PROXY_WORK[reload]):
            bring_into_force(running, folder, wait, reload=reload)
        kept.keep(stack, folder)
    except RolloutError as error:
        return _go_back(running, folder, wait, error, known=known, reload=reload)
    except BaseException:
        _go_back(running, folder, wait, RolloutError("interrupted"), known=known, reload=reload)
        raise
    say(f"in force: plan {found.wanted.plan.hash[:12]}")
    return 0


def _reloads(found: Comparison) -> bool:
    """May the proxy stay: nothing that it was started from changes, nor its address?"""
    from imageworks.commands.here import PROXY

    (proxy,) = (action for action in found.actions if action.program == PROXY)
    served, wanted = found.seen.served, found.wanted.plan.proxy
    return proxy.verb in ("reload", "keep") and served is not None and served.address == (wanted.host, wanted.port)


def _keep_what_serves(found: Comparison, folder: Path) -> bool:
    """Let .imageworks/previous hold what the proxy serves now, or at least what served last; False when nothing does."""
    from imageworks.commands import kept

    stack, served = found.compiled.folder, found.seen.served
    if served is not None and served.folder == folder:
        kept.keep(stack, folder)
    known = kept.read(locations.previous_dir(stack, folder.name)) is not None
    if not known:
        say("there is no copy of files that served, so a failure cannot be undone")
    return known


def _go_back(running: Running, folder: Path, wait: float, error: RolloutError, *, known: bool, reload: bool) -> int:
    from imageworks.commands import kept
    from imageworks.commands.rollout import RolloutError

    fail(str(error), *error.then)
    if not known:
        return fail("nothing to go back to", "mend stack.yaml and apply again, or: imageworks down && imageworks up -d")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Step("going back to what served before"):
            kept.put_back(running.folder, folder)
            _bring_back(running, folder, max(wait, WAIT_S), reload=reload)
    except (RolloutError, OSError) as second:
        return fail(f"that failed too: {second}", *getattr(second, "then", ()), "imageworks down && imageworks up -d")
    say(f"what served before serves again; generated/{folder.name} holds its files, stack.yaml is as you left it")
    return 1


def _bring_back(running: Running, folder: Path, wait: float, *, reload: bool) -> None:
    """The same way back; where that fails, by a restart. Raises RolloutError."""
    from imageworks.commands.rollout import RolloutError, bring_into_force

    try:
        bring_into_force(running, folder, wait, reload=reload)
    except RolloutError:
        if not reload:
            raise
        bring_into_force(running, folder, wait, reload=False)
