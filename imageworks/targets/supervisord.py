"""supervisord.conf of a profile, and the one beside stack.yaml that lets `supervisorctl` work without `-c`.

Owns the restart and stop policy under supervisord: nothing starts by itself, a model that dies stays dead until
the proxy starts it again (two masters would fight), a whole process group is stopped, the proxy drains before
the models go. Programs run through the launcher, so that only names and safe paths stand in these files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from imageworks.plan.ir import Plan
from imageworks.targets.artifact import Artifact
from imageworks.targets.places import HEADER, STATE, Program, exec_path, place, profile_to_stack, programs
from imageworks.targets.quoting import (
    Comment,
    IniPath,
    IniWord,
    SafeName,
    comment,
    ini_path,
    ini_path_word,
    safe_name,
)
from imageworks.targets.templating import render
from imageworks.values import dataclass

NAME = "supervisord"


@dataclass(frozen=True, slots=True)
class ProgramView:
    """One `[program:…]` section. `start_retries` is what supervisord may try by itself; priority: higher stops first."""

    name: SafeName
    about: Comment
    command: tuple[IniWord, ...]
    log: IniPath
    autorestart: bool
    start_retries: int
    priority: int


@dataclass(frozen=True, slots=True)
class ConfView:
    """The whole supervisord.conf."""

    header: tuple[Comment, ...]
    name: SafeName
    socket: IniPath
    log: IniPath
    pidfile: IniPath
    childlogdir: IniPath
    stop_wait_s: int
    programs: tuple[ProgramView, ...]


def _program(state: str, program: Program) -> ProgramView:
    model = program.model
    about = f"{model.id}, port {model.port}" if model else "the one URL"
    launch = (ini_path(f"{state}/bin/launch"), ini_path(exec_path(program.name)))
    return ProgramView(
        name=program.name,
        about=comment(" - ".join(filter(None, (place(program.span), about)))),
        command=tuple(ini_path_word(word) for word in launch),
        log=ini_path(f"{state}/log/{program.name}.log"),
        autorestart=model is None,
        start_retries=0 if model else 3,
        priority=500 if model else 900,
    )


def view(plan: Plan) -> ConfView:
    """What the template needs. Raises QuotingError for names outside the safe alphabet."""
    state = f"{profile_to_stack(plan)}/{STATE}"
    return ConfView(
        header=(comment(HEADER), comment(f"profile {plan.profile}, plan sha256:{plan.hash}")),
        name=safe_name(plan.stack),
        socket=ini_path(f"{state}/run/supervisor.sock"),
        log=ini_path(f"{state}/log/supervisord.log"),
        pidfile=ini_path(f"{state}/run/supervisord.pid"),
        childlogdir=ini_path(f"{state}/log"),
        stop_wait_s=math.ceil(plan.stop_wait_s),
        programs=tuple(_program(state, program) for program in programs(plan)),
    )


def emit(plan: Plan, plans: Sequence[Plan]) -> Iterable[Artifact]:
    """The daemon's file in the profile's folder, and the client's beside stack.yaml, the same for every profile."""
    del plans
    yield Artifact("supervisord.conf", render("supervisord.conf.j2", view(plan)))
    socket = ini_path(f"{STATE}/run/supervisor.sock")
    yield Artifact(
        f"{profile_to_stack(plan)}/supervisord.conf", render("supervisorctl.conf.j2", (comment(HEADER), socket))
    )
