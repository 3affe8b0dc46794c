"""Where generated files lie relative to each other, and the supervised programs of a plan.

Owns the ways between `<out>/<profile>/`, the stack's folder and its state folder, and the list of programs that
execspec, supervisord and systemd share. Relative ways only: no file is looked at.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from imageworks.diagnostics.model import Span
from imageworks.plan.ir import Launch, Plan, PlannedModel
from imageworks.targets.quoting import SafeName, safe_name
from imageworks.values import dataclass

HEADER = "generated from stack.yaml by imageworks compile; do not edit"
STATE = ".imageworks"


@dataclass(frozen=True, slots=True)
class Program:
    """A supervised process of a plan; `model` is None for the proxy."""

    name: SafeName
    launch: Launch
    model: PlannedModel | None

    @property
    def span(self) -> Span | None:
        """The place in the stack file that made it."""
        return self.model.span if self.model else None


def programs(plan: Plan) -> tuple[Program, ...]:
    """The proxy first, then the models that we start, in plan order. Raises QuotingError for an unsafe program name."""
    proxy = Program(safe_name(plan.proxy.launch.program), plan.proxy.launch, None)
    models = (
        Program(safe_name(model.launch.program), model.launch, model)
        for model in plan.models
        if model.launch is not None
    )
    return (proxy, *models)


def profile_to_stack(plan: Plan) -> str:
    """Way from the profile's folder to the stack's: `../..` for out = `generated`."""
    return "/".join([".."] * (len(PurePosixPath(plan.out).parts) + 1))


def exec_to_stack(plan: Plan) -> str:
    """Way from the folder of the exec specs to the stack's."""
    return f"{profile_to_stack(plan)}/.."


def exec_path(program: str) -> str:
    """Place of a program's exec spec in the profile's folder."""
    return f"exec/{program}.json"


def place(span: Span | None) -> str | None:
    """`stack.yaml:41`, or None where nothing in a file stands behind it."""
    return f"{span.file}:{span.line}" if span else None
