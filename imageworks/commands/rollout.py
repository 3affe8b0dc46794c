"""Bringing a generation into force under a supervisord that runs, and seeing that it serves.

Owns the order: the proxy drains and ends first (requests in flight finish, no new one starts a model half-way),
then the programs that were started from something else, then supervisord takes over its file, then the proxy
starts, adopts the models that stayed, and must say that it serves this very plan. Works from the files on disk, so
going back is the same work with the older files.
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


def bring_into_force(running: Running, folder: Path, wait_s: float) -> None:
    """Let supervisord and the proxy run what lies in the profile's `folder`.

    Waits `wait_s` seconds for health. Raises RolloutError; then the proxy may be stopped.
    """
    generation = kept.read(folder)
    if generation is None:
        raise RolloutError(f"{folder} cannot be read", "write it anew: imageworks compile")
    try:
        running.stop(PROXY)
        for program in outdated(running, folder):
            running.stop(program)
        _take_over(running)
        running.start(PROXY)
        until_healthy(running, generation, wait_s)
    except NotRunningError as error:
        raise RolloutError(f"supervisord does not answer: {error}", *last_lines(running.log("supervisord"))) from None
    except xmlrpc.client.Fault as fault:
        raise RolloutError(f"supervisord refuses: {fault.faultString}") from None


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
