"""What runs now, as far as it can be known from outside: programs, what each was started from, what the proxy serves.

Owns the observation behind `plan` and `apply`. Sources: supervisord (which programs live), the launcher's word in
run/<program>.started.json (the exec spec in force at their start; it counts only for the pid that supervisord
names), the proxy's /readyz (hash of its plan) and /running (requests in flight), and the kept copy of the
generation that served last. Changes nothing.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from imageworks import contract, locations
from imageworks.commands import client_key, kept
from imageworks.commands.here import PROXY
from imageworks.commands.kept import Generation
from imageworks.commands.running import NotRunningError, ProgramInfo, Running
from imageworks.commands.session import current_profile
from imageworks.values import dataclass

ALIVE = frozenset({"STARTING", "RUNNING", "STOPPING"})
ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Started:
    """What a living program was started from."""

    file: Path
    spec: contract.ExecSpec


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of one model: answered right now, and waiting for it."""

    in_flight: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """What runs. `profile` and `plan_hash` are None where nobody could say; `served` is what the proxy serves.

    `served` is None unless a copy of exactly those generated files was found.
    """

    up: bool = False
    programs: Mapping[str, ProgramInfo] = field(default_factory=dict)
    started: Mapping[str, Started] = field(default_factory=dict)
    profile: str | None = None
    plan_hash: str | None = None
    served: Generation | None = None
    load: Mapping[str, Load] = field(default_factory=dict)

    def alive(self, program: str) -> bool:
        """True while a process of this program is there."""
        return program in self.programs and self.programs[program].state in ALIVE


def observe(running: Running, out: str) -> Seen:
    """Look at everything once; `out` is the folder of generated files, relative to the stack."""
    try:
        programs = {info.name: info for info in running.programs()}
    except NotRunningError:
        return Seen()
    words = _words(running.folder, programs.values())
    profile = _profile(words) or current_profile(running)
    if profile is None or PROXY not in programs or programs[PROXY].state not in ALIVE:
        return Seen(up=True, programs=programs, started=words, profile=profile)
    folders = (locations.previous_dir(running.folder, profile), running.folder / out / profile)
    copies = tuple(found for folder in folders if (found := kept.read(folder)) is not None)
    answer, address = _ask(copies)
    plan_hash = answer.get("plan_hash")
    return Seen(
        up=True,
        programs=programs,
        started=words,
        profile=profile,
        plan_hash=plan_hash,
        served=next((copy for copy in copies if copy.plan_hash == plan_hash), None),
        load=_load(address),
    )


def started(running: Running) -> Mapping[str, Started]:
    """What each living program was started from, where its word is known. Raises NotRunningError."""
    return _words(running.folder, running.programs())


def _words(stack: Path, programs: Iterable[ProgramInfo]) -> Mapping[str, Started]:
    return {info.name: word for info in programs if (word := _started(stack, info)) is not None}


def _started(stack: Path, info: ProgramInfo) -> Started | None:
    if info.state not in ALIVE:
        return None
    try:
        word = json.loads(locations.started_file(stack, info.name).read_text("utf-8"))
        contract.check_schema("the launcher's word", word["schema"], contract.STARTED_SCHEMA)
        if word["pid"] != info.pid:
            return None
        return Started(Path(word["file"]), contract.exec_spec(json.dumps(word["spec"])))
    except (OSError, ValueError, KeyError, TypeError):  # a ContractError is a ValueError
        return None


def _profile(started: Mapping[str, Started]) -> str | None:
    """`<out>/<profile>/exec/<program>.json` tells the profile; the proxy's word counts first."""
    word = started.get(PROXY) or next(iter(started.values()), None)
    return word.file.parent.parent.name if word else None


def _ask(copies: tuple[Generation, ...]) -> tuple[Mapping[str, Any], tuple[str, int] | None]:
    """The proxy's /readyz, and the address where it answered."""
    for address in dict.fromkeys(copy.address for copy in copies):
        if (answer := get(address, "/readyz")) is not None and "plan_hash" in answer:
            return answer, address
    return {}, None


def _load(address: tuple[str, int] | None) -> Mapping[str, Load]:
    answer = get(address, "/running") if address else None
    rows = answer.get("running", ()) if answer else ()
    return {str(row["model"]): Load(int(row["inflight"]), int(row["waiting"])) for row in rows}


def get(address: tuple[str, int], path: str) -> Mapping[str, Any] | None:
    """The JSON object that the proxy answers, whatever the status; None when there is none."""
    connection = http.client.HTTPConnection(*address, timeout=ANSWER_S)
    try:
        connection.request("GET", path, headers=client_key.headers())
        answer = json.loads(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return answer if isinstance(answer, dict) else None
