"""Which targets there are, and the files of a plan from all that are switched on.

Owns the order of targets and the refusal of two files at one place. A new target is one module of
`artifact.Target` and one line here, or an entry point of an installed package (`plugins`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from imageworks.diagnostics.model import Diagnostic, Fix, Label
from imageworks.plan.ir import Options, Plan
from imageworks.targets.artifact import Artifact, Target


def _targets(plans: Sequence[Plan]) -> tuple[tuple[Target, Callable[[Options], bool]], ...]:
    from imageworks.targets import (  # noqa: PLC0415 - `check` emits nothing
        execspec,
        llama_swap,
        plan_json,
        prompts,
        routes,
        supervisord,
        systemd,
        vllm,
    )

    return (
        (execspec, lambda _: True),
        (routes.Routes(plans), lambda _: True),
        (prompts, lambda _: True),
        (plan_json, lambda _: True),
        (supervisord, lambda options: options.supervisord),
        (systemd, lambda options: options.systemd),
        (vllm, lambda options: options.vllm_scripts),
        (llama_swap, lambda options: options.llama_swap),
    )


def check(plans: Sequence[Plan]) -> tuple[Diagnostic, ...]:
    """What stands in the way of `emit`: options whose values a target's format cannot carry."""
    return (*_check_systemd(plans), *_check_llama_swap(plans), *_check_plugins(plans))


def _check_plugins(plans: Sequence[Plan]) -> tuple[Diagnostic, ...]:
    if not any(plan.options.plugins for plan in plans):
        return ()
    from imageworks.targets import plugins  # noqa: PLC0415 - looking for installed packages takes time

    return plugins.check(plans)


def _check_systemd(plans: Sequence[Plan]) -> tuple[Diagnostic, ...]:
    from imageworks.targets import quoting  # noqa: PLC0415 - only for plans with systemd units

    prefixes = {(plan.options.systemd_prefix, plan.options.systemd_scope) for plan in plans if plan.options.systemd}
    return tuple(
        Diagnostic(
            code="IW520",
            message=f"targets.systemd.prefix `{prefix}` cannot stand in a unit file",
            primary=None,
            notes=(problem,),
            fixes=(Fix("a folder such as %h/imageworks" if scope == "user" else "a folder such as /srv/imageworks"),),
        )
        for prefix, scope in sorted(prefixes)
        if (problem := quoting.prefix_problem(prefix) or _of_root(prefix, scope))
    )


def _of_root(prefix: str, scope: str) -> str | None:
    """Why `prefix` cannot be a folder of the units' own user; they run as `imageworks`, the manager as root."""
    if scope == "user" or not {"%h", "%u", "%U"} & set(re.findall("%.", prefix)):
        return None
    return "in units of the system %h, %u and %U are root's, whose files the service cannot read"


def _check_llama_swap(plans: Sequence[Plan]) -> tuple[Diagnostic, ...]:
    """Each problem of a model once, whatever the number of profiles that have it."""
    if not any(plan.options.llama_swap for plan in plans):
        return ()
    from imageworks.targets import llama_swap  # noqa: PLC0415 - few stacks have it switched on

    found = {
        (model.id, problem): model
        for plan in plans
        if plan.options.llama_swap
        for model, problem in llama_swap.problems(plan)
    }
    return tuple(
        Diagnostic(
            code="IW521",
            message=f"{name} cannot stand in llama-swap.yaml",
            primary=Label(model.span) if model.span else None,
            notes=(problem,),
            fixes=(Fix("change the text"), Fix("targets: {llama_swap: {enabled: false}}")),
        )
        for (name, problem), model in sorted(found.items(), key=lambda item: item[0])
    )


def emit(plan: Plan, plans: Sequence[Plan]) -> tuple[Artifact, ...]:
    """The files of `plan`, sorted by path; `plans` are those of all profiles.

    Raises QuotingError for what `check` reports and for names outside the safe alphabet, ValueError when two
    targets write one file.
    """
    return _emit(plan, plans, _targets(plans))


def emit_all(plans: Sequence[Plan], chosen: Collection[str]) -> dict[str, tuple[Artifact, ...]]:
    """The files of each profile in `chosen`; what profiles have in common is made once. Raises as `emit`."""
    targets = _targets(plans)
    return {plan.profile: _emit(plan, plans, targets) for plan in plans if plan.profile in chosen}


def _emit(
    plan: Plan, plans: Sequence[Plan], targets: Sequence[tuple[Target, Callable[[Options], bool]]]
) -> tuple[Artifact, ...]:
    files = [file for target, wanted in targets if wanted(plan.options) for file in target.emit(plan, plans)]
    if plan.options.plugins:
        from imageworks.targets import plugins  # noqa: PLC0415 - as above

        files += plugins.emit(plan, plans)
    twice = [path for path, count in Counter(file.path for file in files).items() if count > 1]
    if twice:
        raise ValueError(f"written twice: {', '.join(sorted(twice))}")
    return tuple(sorted(files, key=lambda file: file.path))
