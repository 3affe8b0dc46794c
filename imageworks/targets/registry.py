"""Which targets there are, and the files of a plan from all that are switched on.

Owns the order of targets and the refusal of two files at one place. A new target is one module of
`artifact.Target` and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from imageworks.diagnostics.model import Diagnostic, Fix
from imageworks.plan.ir import Options, Plan
from imageworks.targets import execspec, plan_json, prompts, quoting, routes, supervisord, systemd, vllm
from imageworks.targets.artifact import Artifact, Target

TARGETS: tuple[tuple[Target, Callable[[Options], bool]], ...] = (
    (execspec, lambda _: True),
    (routes, lambda _: True),
    (prompts, lambda _: True),
    (plan_json, lambda _: True),
    (supervisord, lambda options: options.supervisord),
    (systemd, lambda options: options.systemd),
    (vllm, lambda options: options.vllm_scripts),
)


def check(plans: Sequence[Plan]) -> tuple[Diagnostic, ...]:
    """What stands in the way of `emit`: options whose values a target's format cannot carry."""
    prefixes = {plan.options.systemd_prefix for plan in plans if plan.options.systemd}
    return tuple(
        Diagnostic(
            code="IW520",
            message=f"targets.systemd.prefix `{prefix}` cannot stand in a unit file",
            primary=None,
            notes=(problem,),
            fixes=(Fix("a folder such as %h/imageworks or /srv/imageworks"),),
        )
        for prefix in sorted(prefixes)
        if (problem := quoting.prefix_problem(prefix))
    )


def emit(plan: Plan, plans: Sequence[Plan]) -> tuple[Artifact, ...]:
    """The files of `plan`, sorted by path; `plans` are those of all profiles.

    Raises QuotingError for what `check` reports and for names outside the safe alphabet, ValueError when two
    targets write one file.
    """
    files = [file for target, wanted in TARGETS if wanted(plan.options) for file in target.emit(plan, plans)]
    paths = [file.path for file in files]
    twice = {path for path in paths if paths.count(path) > 1}
    if twice:
        raise ValueError(f"written twice: {', '.join(sorted(twice))}")
    return tuple(sorted(files, key=lambda file: file.path))
