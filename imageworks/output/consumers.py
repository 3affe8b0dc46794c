"""The consumers' own parsers, run on what we emitted.

Owns the calls into supervisor's reader and `systemd-analyze`. Both accept much that they then ignore, so a key
nobody reads and a line systemd complains about are both reported. Changes nothing on disk.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from supervisor import options as supervisor

from imageworks.values import dataclass


@dataclass(frozen=True, slots=True)
class Read:
    """A supervisord.conf as supervisord understands it.

    `commands` maps a program to its argv. `unread` are keys (`section.key`) that supervisord never asks for, so a
    typing error in them would pass in silence. `problem` is its complaint when it refuses the file.
    """

    commands: dict[str, tuple[str, ...]]
    socket: str | None
    unread: tuple[str, ...]
    problem: str | None = None


def read_supervisord(conf: Path) -> Read:
    """Read `conf` with supervisord's own reader (and the client's, for `[supervisorctl]`). Raises OSError."""
    asked: set[tuple[str, str]] = set()

    class Watching(supervisor.UnhosedConfigParser):  # type: ignore[misc]
        """Remembers what the reader asks for (supervisor has no types, hence the ignore)."""

        def saneget(self, section: str, option: str, *rest: Any, **named: Any) -> Any:
            asked.add((section, option))
            return super().saneget(section, option, *rest, **named)

    sections, present = _keys(conf)
    original = supervisor.UnhosedConfigParser
    supervisor.UnhosedConfigParser = Watching
    try:
        server, client = supervisor.ServerOptions(), supervisor.ClientOptions()
        for one in (server, client):
            one.configfile = str(conf)
            one.here = str(conf.parent.absolute())
        read = server.read_config(str(conf)) if "supervisord" in sections else None
        client.read_config(str(conf))
    except ValueError as error:
        return Read({}, None, (), str(error))
    finally:
        supervisor.UnhosedConfigParser = original
    unread = tuple(sorted(f"{section}.{key}" for section, key in present - asked))
    return Read(_commands(read), _socket(read), unread)


def _keys(conf: Path) -> tuple[list[str], set[tuple[str, str]]]:
    parser = supervisor.UnhosedConfigParser()
    parser.read_string(conf.read_text("utf-8"))
    sections = parser.sections()
    return sections, {(section, key) for section in sections for key in parser.options(section)}


def _commands(read: Any) -> dict[str, tuple[str, ...]]:
    groups = read.process_group_configs if read else ()
    return {one.name: tuple(shlex.split(one.command)) for group in groups for one in group.process_configs}


def _socket(read: Any) -> str | None:
    return next((str(one["file"]) for one in read.server_configs if "file" in one), None) if read else None


def verify_units(units: Sequence[Path]) -> tuple[str, ...] | None:
    """What `systemd-analyze verify` says about unit files, line by line; None where there is no systemd-analyze."""
    program = shutil.which("systemd-analyze")
    if program is None:
        return None
    done = subprocess.run(
        [program, "verify", "--man=no", "--recursive-errors=no", *(str(unit.absolute()) for unit in units)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    lines = tuple(line for line in done.stderr.splitlines() if line.strip())
    return lines or (() if done.returncode == 0 else (f"systemd-analyze verify exited with {done.returncode}",))
