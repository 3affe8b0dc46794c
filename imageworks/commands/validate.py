"""Emitted files against the parsers of those who will read them, before anything is written.

Owns the throw-away copy that they are read from, laid out like the stack's folder. A complaint here is a bug of
ours or of a version of a consumer that we do not know; better found now than by a daemon that is already stopped.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from imageworks import contract
from imageworks.output.consumers import read_supervisord, verify_units
from imageworks.plan.ir import Plan
from imageworks.targets.artifact import Artifact

# The unit names the launcher where the stack is to be installed, which need not be this machine.
_ELSEWHERE = ("is not executable", "No such file or directory")


def complaints(plan: Plan, files: Mapping[str, Artifact]) -> tuple[str, ...]:
    """What supervisor, systemd, the launcher and the proxy have against the files of one profile; empty is good."""
    with tempfile.TemporaryDirectory(prefix="imageworks-") as name:
        stack = Path(name)
        for folder in ("run", "log", "bin"):
            (stack / ".imageworks" / folder).mkdir(parents=True)
        place = stack / plan.out / plan.profile
        for path, file in files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(file.text, "utf-8")
        return (*_tables(files), *_supervisor(place, files), *_systemd(place, files))


def _tables(files: Mapping[str, Artifact]) -> Iterator[str]:
    from imageworks.runtime import table

    for path, file in files.items():
        try:
            if path == "routes.json":
                table.decode(file.text.encode())
            elif path.startswith("exec/"):
                contract.exec_spec(file.text)
        except contract.ContractError as error:
            yield f"{path}: {error}"


def _supervisor(place: Path, files: Mapping[str, Artifact]) -> Iterator[str]:
    if "supervisord.conf" not in files:
        return
    read = read_supervisord(place / "supervisord.conf")
    if read.problem:
        yield f"supervisord.conf: {read.problem}"
        return
    yield from (f"supervisord.conf: supervisor does not know {key}" for key in read.unread)
    specs = {path.removeprefix("exec/").removesuffix(".json") for path in files if path.startswith("exec/")}
    yield from (f"supervisord.conf: {name} has no exec spec" for name in sorted(read.commands.keys() - specs))
    yield from (f"supervisord.conf: {name} is missing" for name in sorted(specs - read.commands.keys()))


def _systemd(place: Path, files: Mapping[str, Artifact]) -> Iterator[str]:
    units = [place / path for path in files if path.startswith("systemd/")]
    said = verify_units(units) if units else ()
    yield from (line for line in said or () if not any(word in line for word in _ELSEWHERE))
