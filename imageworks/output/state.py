"""The state folder beside stack.yaml: `.imageworks/{run,log,bin}` and the launcher that everything starts through.

Owns what must be there before supervisord starts (it exits when a log folder is missing) and the two properties of
the stack's path that supervisord cannot live with. The launcher is a shell wrapper, because a link to a virtual
environment's python loses the environment; it is this machine's own and is never committed.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from imageworks.diagnostics.model import Diagnostic
from imageworks.output import findings, swap

STATE = ".imageworks"
# sun_path holds 108 bytes with the final NUL; supervisord first binds `<path>.<pid>`, and a pid has up to 7 digits.
SOCKET_LIMIT = 107 - len(".4194304")
_UNUSABLE = re.compile('[%"\\\\\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]')


def problem(stack_dir: Path) -> Diagnostic | None:
    """Why supervisord could not work from `stack_dir`, or None."""
    path = str(stack_dir.absolute())
    if match := _UNUSABLE.search(path):
        return findings.unusable_folder(path, ascii(match[0]))
    socket = os.path.normpath(f"{path}/{STATE}/run/supervisor.sock")
    size = len(os.fsencode(socket))
    return findings.socket_too_long(socket, size, SOCKET_LIMIT) if size > SOCKET_LIMIT else None


def wrapper(python: str) -> str:
    """Text of `bin/launch`: programs installed beside `python` are found first, the working directory imports nothing."""
    return "\n".join(
        (
            "#!/bin/sh",
            "# Written by imageworks for this machine: starts a program of the stack.",
            f"PATH={shlex.quote(str(Path(python).parent))}${{PATH:+:$PATH}}",
            "export PATH",
            f'exec {shlex.quote(python)} -P -m imageworks.launch "$@"',
            "",
        )
    )


def prepare_state(stack_dir: Path, python: str) -> tuple[Diagnostic, ...]:
    """Make the state folder (0700, ignored by git) and the launcher for the interpreter `python` (an absolute path).

    Returns what stands in the way; then nothing was made, except where the system refused half-way.
    """
    if found := problem(stack_dir):
        return (found,)
    state = stack_dir / STATE
    try:
        for folder in (state, state / "run", state / "log", state / "bin"):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o700)
        with swap.locked(state / "bin"):  # two compiles at once; the proxy that runs holds the folder above
            for path, text, mode in (
                (state / ".gitignore", "*\n", 0o600),
                (state / "bin/launch", wrapper(python), 0o700),
            ):
                if not _is(path, text, mode):
                    swap.replace_file(path, os.fsencode(text), mode)
    except OSError as error:
        return (findings.failed(STATE, error),)
    return ()


def _is(path: Path, text: str, mode: int) -> bool:
    return path.is_file() and path.read_bytes() == os.fsencode(text) and path.stat().st_mode & 0o777 == mode
