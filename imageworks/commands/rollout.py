"""Bringing a generation into force under a supervisord that runs, and seeing that it serves.

Owns two orders. Where the proxy can take its table over while it serves: supervisord learns the new programs, the proxy
reloads and replaces what was started from something else once that is idle, then supervisord forgets what is gone. Else
the proxy drains and ends first (requests in flight finish, no new one starts a model half-way), then those programs,
then supervisord takes over its file, then the proxy starts and adopts the models that stayed. In the end it must say
that it serves this very plan. Works from the files on disk, so going back is the same work with the older files.
"""

from __future__ import annotations

import time
import xmlrpc.client
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imageworks import contract
from imageworks.commands import inforce, kept
from imageworks.commands.here import PROXY
from imageworks.commands.inforce import ALIVE
from imageworks.commands.kept import Generation
from imageworks.commands.running import NotRunningError, Running
from imageworks.commands.session import POLL_S, last_lines

_FAILED = frozenset({"BACKOFF", "FATAL", "EXITED"})


class RolloutError(Exception):
    """A generation did not come into force; the first line says what happened, `then` what is known about it."""

    def __init__(self, message: str, *then: str) -> None:
        super().__init__(message)
        self.then = then


def bring_into_force(running: Running, folder: Path, wait_s: float, *, reload: bool) -> None:
    """Let supervisord and the proxy run what lies in the profile's `folder`; the proxy is not restarted where it can `reload`.

    Waits `wait_s` seconds for health. Raises RolloutError; then the proxy may be stopped.
    """
    generation = kept.read(folder)
    if generation is None:
        raise RolloutError(f"{folder} cannot be read", "write it anew: imageworks compile")
    try:
        if not (reload and _reload(running, generation, wait_s)):
            _restart(running, folder)
        until_healthy(running, generation, wait_s)
    except NotRunningError as error:
        raise RolloutError(f"supervisord does not answer: {error}", *last_lines(running.log("supervisord"))) from None
    except xmlrpc.client.Fault as fault:
        raise RolloutError(f"supervisord refuses: {fault.faultString}") from None


def _restart(running: Running, folder: Path) -> None:
    running.stop(PROXY)
    for program in outdated(running, folder):
        running.stop(program)
    _take_over(running)
    running.start(PROXY)


def _reload(running: Running, generation: Generation, wait_s: float) -> bool:
    """Let the proxy take the generation over while it serves; False where it has to be restarted."""
    before = _last_reload(generation)
    file = running.reread()
    if before is None or file.changed:
        return False
    for program in file.added:
        running.add(program)
    running.signal(PROXY, "HUP")
    last = _until_reloaded(generation, before["number"], wait_s)
    if last is None or last["failed"] or last["restart_needed"]:
        return False
    _until_replaced(running, generation)
    for program in file.removed:
        running.stop(program)
        running.remove(program)
    return True


def _last_reload(generation: Generation) -> Mapping[str, Any] | None:
    """What the proxy says of its last reload; None where it does not answer there, or is one that cannot reload."""
    answer = inforce.get(generation.address, "/readyz")
    return answer.get("reload") if answer else None


def _until_reloaded(generation: Generation, number: int, wait_s: float) -> Mapping[str, Any] | None:
    """What came of the reload after that of `number`; None when nothing did."""
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        last = _last_reload(generation)
        if last is None or last["number"] > number:
            return last
        time.sleep(POLL_S)
    return None


def _until_replaced(running: Running, generation: Generation) -> None:
    """The proxy stops what was started from something else when it is idle; what is not within the drain time is cut."""
    end = time.monotonic() + float(generation.routes["proxy"]["drain_s"])
    while left := outdated(running, generation.folder):
        if time.monotonic() > end:
            for program in left:
                running.stop(program)
            return
        time.sleep(POLL_S)


def outdated(running: Running, folder: Path) -> tuple[str, ...]:
    """Living programs, without the proxy, that were not started from the exec spec that lies in `folder`."""
    seen = {name: word.spec for name, word in inforce.started(running).items()}
    alive = (info.name for info in running.programs() if info.state in ALIVE and info.name != PROXY)
    return tuple(name for name in alive if name not in seen or seen[name] != _spec(folder, name))


def _spec(folder: Path, program: str) -> contract.ExecSpec | None:
    try:
        return contract.exec_spec((folder / "exec" / f"{program}.json").read_text("utf-8"))
    except (OSError, contract.ContractError):
        return None


def _take_over(running: Running) -> None:
    """Let supervisord hold exactly the programs of its file; what stays the same is not touched."""
    file = running.reread()
    for program in (*file.removed, *file.changed):
        running.stop(program)
        running.remove(program)
    for program in (*file.changed, *file.added):
        running.add(program)


def until_healthy(running: Running, generation: Generation, wait_s: float) -> None:
    """Return once the proxy at the generation's address serves that generation. Raises RolloutError."""
    end = time.monotonic() + wait_s
    answer: Mapping[str, Any] | None = None
    while not (answer and answer.get("ready") and answer.get("plan_hash") == generation.plan_hash):
        if running.program(PROXY).state in _FAILED:
            raise RolloutError("the proxy does not start", *last_lines(running.log(PROXY)))
        if time.monotonic() > end:
            reason = (answer or {}).get("reason") or "it does not answer"
            raise RolloutError(f"not healthy within {wait_s:g} s: {reason}", *last_lines(running.log(PROXY)))
        time.sleep(POLL_S)
        answer = inforce.get(generation.address, "/readyz")
