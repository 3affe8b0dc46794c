"""systemd units: the proxy, one service for each model, a target and slices; for the system a polkit rule.

Owns stop, restart and sandbox policy under systemd. A model is never restarted by systemd: the proxy, which owns
the memory, does that. The sandbox has two depths: a user manager cannot drop capabilities, so units of scope
`user` leave out what would make them fail there (decision 022).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from imageworks.plan.ir import Plan
from imageworks.targets.artifact import Artifact
from imageworks.targets.places import HEADER, STATE, Program, exec_path, place, programs
from imageworks.targets.quoting import (
    Comment,
    SafeName,
    UnitBare,
    UnitEnv,
    UnitPath,
    UnitWord,
    comment,
    safe_name,
    unit_bare,
    unit_env,
    unit_env_below,
    unit_folder,
    unit_path_below,
    unit_word_below,
)
from imageworks.targets.templating import render
from imageworks.values import dataclass

NAME = "systemd"
# The unit's own deadline lies behind the supervisor's, so that the program's own stop is seen first.
_BEYOND_STOP_S = 5
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class UnitView:
    """One service.

    `gpu`: may use the NVIDIA nodes. `ours`: our own code, which needs no just-in-time compiler. `local`: talks to
    this machine only. `system`: scope of the manager. Timeouts in seconds.
    """

    header: tuple[Comment, ...]
    description: UnitBare
    slice: SafeName
    folder: UnitBare
    command: tuple[UnitWord, ...]
    environment: tuple[UnitEnv, ...]
    credentials: tuple[SafeName, ...]
    writable: tuple[UnitPath, ...]
    start_timeout_s: int
    stop_timeout_s: int
    system: bool
    gpu: bool
    ours: bool
    local: bool


@dataclass(frozen=True, slots=True)
class GroupView:
    """The target or the slice."""

    header: tuple[Comment, ...]
    description: UnitBare
    proxy: SafeName
    wanted_by: SafeName


@dataclass(frozen=True, slots=True)
class RuleView:
    """The polkit rule: which units the proxy may start and stop."""

    header: tuple[Comment, ...]
    models: tuple[SafeName, ...]


def _slice(slots: Sequence[int]) -> SafeName:
    """The slice of a program on these GPUs, below `imageworks`; of several GPUs a slice of their own."""
    return safe_name(f"imageworks-gpu{'_'.join(map(str, slots))}" if slots else "imageworks")


def _header(plan: Plan, program: Program | None = None) -> tuple[Comment, ...]:
    line = place(program.span) if program else None
    made = f"profile {plan.profile}, plan sha256:{plan.hash}"
    return (comment(HEADER), comment(f"{line}, {made}" if line else made))


def _local(plan: Plan, program: Program) -> bool:
    """True when the program need not reach beyond this machine."""
    if program.model is not None:
        return True
    return plan.proxy.host in _LOOPBACK and not any(model.placement.kind == "remote" for model in plan.models)


def _environment(plan: Plan, program: Program) -> Iterable[UnitEnv]:
    options = plan.options
    if program.model is None:
        yield unit_env("IMAGEWORKS_INIT", f"systemd-{options.systemd_scope}")
    if options.systemd_scope == "system":
        yield unit_env_below("XDG_CACHE_HOME", options.systemd_prefix, f"{STATE}/cache")
        if program.model is not None:  # where engines keep compiled kernels; the user's own home is read-only
            yield unit_env_below("HOME", options.systemd_prefix, f"{STATE}/home")


def _credentials(plan: Plan, program: Program) -> Iterable[SafeName]:
    """Names of the credentials that the program reads: its own, or for the proxy those of remote servers' and clients' keys."""
    keys = plan.proxy_secrets
    for secret in program.launch.secrets.values() if program.model else keys:
        if secret.credential is not None:
            yield safe_name(secret.credential)


def _writable(plan: Plan, program: Program) -> Iterable[UnitPath]:
    """The state folder; under a user manager an engine also keeps its caches in the user's home."""
    yield unit_path_below(plan.options.systemd_prefix, STATE)
    if program.model is not None and plan.options.systemd_scope == "user":
        yield unit_path_below("%h", ".cache", optional=True)
        yield unit_path_below("%h", ".triton", optional=True)


def view(plan: Plan, program: Program) -> UnitView:
    """What the template needs for one service. Raises QuotingError for an unusable prefix."""
    prefix, model = plan.options.systemd_prefix, program.model
    exec_file = f"{plan.out}/{plan.profile}/{exec_path(program.name)}"
    return UnitView(
        header=_header(plan, program),
        description=unit_bare(f"ImageWorks model {model.id}" if model else "ImageWorks proxy"),
        slice=_slice(program.launch.slots),
        folder=unit_folder(prefix),
        command=(unit_word_below(prefix, f"{STATE}/bin/launch"), unit_word_below(prefix, exec_file)),
        environment=tuple(_environment(plan, program)),
        credentials=tuple(dict.fromkeys(_credentials(plan, program))),
        writable=tuple(_writable(plan, program)),
        start_timeout_s=math.ceil(model.start_timeout_s) if model else 30,
        stop_timeout_s=math.ceil(plan.stop_wait_s) + _BEYOND_STOP_S,
        system=plan.options.systemd_scope == "system",
        gpu=bool(program.launch.slots) or (model is None and bool(plan.devices)),  # the proxy measures their memory
        ours=model is None or (model.backend == "llamacpp" and not program.launch.slots),
        local=_local(plan, program),
    )


def emit(plan: Plan, plans: Sequence[Plan]) -> Iterable[Artifact]:
    """The services, the target and the slices; for the system also what lets the proxy start models."""
    del plans
    for program in programs(plan):
        template = "model.service.j2" if program.model else "proxy.service.j2"
        yield Artifact(f"systemd/{program.name}.service", render(template, view(plan, program)))
    yield from _groups(plan)
    models = tuple(program.name for program in programs(plan) if program.model)
    if plan.options.systemd_scope == "system" and models:
        rule = RuleView(_header(plan), models)
        yield Artifact("polkit/50-imageworks.rules", render("polkit.rules.j2", rule))


def _groups(plan: Plan) -> Iterable[Artifact]:
    """The target, and the slices: what runs on one GPU can be watched, bounded and stopped as a whole."""
    group = GroupView(
        header=_header(plan),
        description=unit_bare(f"ImageWorks stack {plan.stack}"),
        proxy=safe_name(plan.proxy.launch.program),
        wanted_by=safe_name("multi-user.target" if plan.options.systemd_scope == "system" else "default.target"),
    )
    for unit in ("imageworks.target", "imageworks.slice"):
        yield Artifact(f"systemd/{unit}", render(f"{unit}.j2", group))
    for slots in sorted({program.launch.slots for program in programs(plan) if program.launch.slots}):
        gpus = " and ".join(f"GPU {slot}" for slot in slots)
        view_of_gpu = replace(group, description=unit_bare(f"ImageWorks stack {plan.stack}, {gpus}"))
        yield Artifact(f"systemd/{_slice(slots)}.slice", render("imageworks.slice.j2", view_of_gpu))
