"""`imageworks roles`: who answers each role on a profile, in order, why, and what is missing on this disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imageworks.commands.console import result
from imageworks.commands.perspective import planned
from imageworks.commands.pipeline import layers_option

if TYPE_CHECKING:
    from imageworks.plan.ir import Plan, PlannedRole


@click.command("roles", help="Which model answers which role, in order, and why. With ROLE: only that one.")
@click.argument("role", required=False)
@layers_option
@click.option(
    "--profile", metavar="NAME", help="Hardware profile; default: the one of the last `up`, else development."
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(role: str | None, stack: tuple[Path, ...], profile: str | None, form: str) -> int:
    """Exit 0, or 1 when the stack does not compile or has no such role."""
    view = planned(stack, profile)
    if view is None:
        return 1
    compiled, plan = view
    chosen = [item for item in plan.roles if role in (None, item.name)]
    if not chosen:
        from imageworks.commands.console import fail

        return fail(f"no role `{role}`", f"roles: {', '.join(item.name for item in plan.roles)}")
    missing = missing_weights(plan, compiled.folder)
    if form == "json":
        result(json.dumps({"profile": plan.profile, "roles": [_data(item, missing) for item in chosen]}, indent=2))
    else:
        result(f"profile {plan.profile}")
        for item in chosen:
            result("\n".join(_lines(item, missing)))
    return 0


def missing_weights(plan: Plan, folder: Path) -> dict[str, str]:
    """Models of the plan whose weights are not on this disk -> the command that gets them."""
    from imageworks import contract
    from imageworks.locations import tokens

    places = tokens(folder, {root.name: contract.Root(root.env, root.default) for root in plan.roots}, os.environ)
    return {
        model.id: need.hint
        for model in plan.models
        for need in (model.launch.needs if model.launch else ())
        if not Path(contract.expand(need.path, places)).exists()
    }


def _lines(role: PlannedRole, missing: dict[str, str]) -> list[str]:
    lines = [click.style(role.name, bold=True) + ("" if role.candidates else "  nobody serves it here")]
    for rank, item in enumerate(role.candidates, 1):
        lines.append(f"  {rank}. {item.model}  {item.why}")
        if item.model in missing:
            lines.append(f"     not on this disk; get it: {missing[item.model]}")
    lines += [f"  -  {item.model}  cannot: {item.reason}" for item in role.rejected]
    return lines


def _data(role: PlannedRole, missing: dict[str, str]) -> dict[str, Any]:
    return {
        "role": role.name,
        "candidates": [
            {"model": item.model, "priority": item.priority, "via": item.via, "vram_mib": item.vram_mib, "why": item.why,
             "missing": missing.get(item.model)}
            for item in role.candidates
        ],
        "rejected": [{"model": item.model, "reason": item.reason} for item in role.rejected],
    }  # fmt: skip
