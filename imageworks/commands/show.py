"""`imageworks show [MODEL]`: the resolved plan with the reason of every number.

Without MODEL: the profile as a whole. With it: where it runs, the sum of its memory, and every word of its
launch command with what it follows from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imageworks.commands.console import fail, result
from imageworks.commands.perspective import planned
from imageworks.commands.pipeline import layers_option

if TYPE_CHECKING:
    from imageworks.plan.ir import Memory, Plan, PlannedModel

_GIB = 1 << 30


@click.command(
    "show", help="The resolved plan: of MODEL, every number with its reason; without MODEL, the whole profile."
)
@click.argument("model", required=False)
@layers_option
@click.option(
    "--profile", metavar="NAME", help="Hardware profile; default: the one of the last `up`, else development."
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(model: str | None, stack: tuple[Path, ...], profile: str | None, form: str) -> int:
    """Exit 0, or 1 when the stack does not compile or has no such model."""
    view = planned(stack, profile)
    if view is None:
        return 1
    _, plan = view
    if form == "json":
        return _json(plan, model)
    if model is None:
        result("\n".join(_profile(plan)))
        return 0
    found = next((item for item in plan.models if model in (item.id, *item.aliases)), None)
    if found is not None:
        result("\n".join(_model(found, plan)))
        return 0
    left_out = next((item for item in plan.unplaced if item.id == model), None)
    if left_out is not None:
        result(f"{left_out.id} is left out on {plan.profile} ({left_out.code}): {left_out.reason}")
        result("\n".join(sum_lines(left_out.memory)))
        return 0
    return _unknown(model, plan)


def _unknown(model: str, plan: Plan) -> int:
    import difflib

    known = [item.id for item in plan.models] + [item.id for item in plan.unplaced]
    close = difflib.get_close_matches(model, known, n=1)
    return fail(f"no model `{model}`", f"did you mean `{close[0]}`?" if close else f"models: {', '.join(known)}")


def _json(plan: Plan, model: str | None) -> int:
    from imageworks.targets.plan_json import document

    data = document(plan)
    if model is not None:
        rows = [row for name in ("models", "unplaced") for row in data[name] if row["id"] == model]
        if not rows:
            return _unknown(model, plan)
        data = rows[0]
    result(json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False))
    return 0


def _profile(plan: Plan) -> Iterator[str]:
    yield f"{plan.stack} on {plan.profile}"
    for device in plan.devices:
        yield f"  GPU {device.slot}: {_gib(device.capacity)} - {_gib(device.headroom)} headroom = {_gib(device.budget)} GiB to plan with"
    policy = plan.policy
    yield f"  {policy.strategy}, at most {policy.max_concurrent_models} at once; CPU models: {_gib(policy.host_memory)} GiB"
    yield f"  proxy {plan.proxy.host}:{plan.proxy.port}"
    width = max((len(model.id) for model in plan.models), default=0)
    for model in plan.models:
        where = {"gpu": f"GPU {'+'.join(map(str, model.placement.slots))}", "cpu": "CPU", "remote": "remote"}[
            model.placement.kind
        ]
        port = f":{model.port}" if model.port else model.url
        yield f"  {model.id.ljust(width)}  {where:<7} {_gib(model.memory.total):>6} GiB  context {model.context} x {model.concurrency}  {port}"
    for item in plan.unplaced:
        yield f"  {item.id.ljust(width)}  left out ({item.code}): {item.reason}"
    yield from _together(plan)


def _together(plan: Plan) -> Iterator[str]:
    """The sets that were proved to fit, and what memory keeps apart."""
    found = plan.residents
    if found.sets:
        yield "  loaded together, at most"
    for each in found.sets:
        names = " + ".join(f"{name} (kept)" if name in plan.policy.resident else name for name in each.models)
        yield f"    {names}: {each.used_mib} of {each.room_mib} MiB on {each.pool}"
    if found.bound:
        yield f"    {found.bound}"
    if found.refused:
        yield "  never together, for want of memory"
    yield from (f"    {item.reason}" for item in found.refused)


def _model(model: PlannedModel, plan: Plan) -> Iterator[str]:
    yield f"{model.id} on {plan.profile}: {model.backend}, {model.quantization or 'quantisation unknown'}, {', '.join(model.capabilities)}"
    if model.aliases:
        yield f"  also known as {', '.join(model.aliases)}"
    yield f"  placement    {model.placement.why}"
    yield f"  context      {model.context}: {model.context_why}"
    yield f"  concurrency  {model.concurrency}: {model.concurrency_why}"
    yield f"  grace        {model.grace_s:g} s; start timeout {model.start_timeout_s:g} s{'; pinned' if model.pinned else ''}"
    yield "  memory"
    yield from (f"  {line}" for line in sum_lines(model.memory))
    if model.launch is None:
        yield f"  not started by us; reached at {model.url} as {model.served_name}"
        if model.key is not None:
            yield f"  key: secret {model.key.name}, read when the proxy starts"
        return
    yield "  launch command"
    words = [
        ("=" if flag.form == "equals" else " ").join(filter(None, (flag.name, flag.value)))
        for flag in model.launch.flags
    ]
    width = min(52, max(map(len, words)))
    for word, flag in zip(words, model.launch.flags, strict=True):
        line = f" ({flag.span.file}:{flag.span.line})" if flag.span else ""
        yield f"    {word.ljust(width)}  {flag.why}{line}"
    for name, value in model.launch.env.items():
        yield f"    {name}={value}"
    for name, secret in model.launch.secrets.items():
        yield f"    {name}: secret {secret.name}, read at start"


def sum_lines(memory: Memory) -> Iterator[str]:
    """The terms of a model's memory with origin, reason and place, and their sum."""
    for term in memory.terms:
        place = f" ({term.span.file}:{term.span.line})" if term.span else ""
        yield f"  {term.name:<16} {_gib(term.bytes):>6} GiB  {term.origin}: {term.why}{place}"
    if memory.terms:
        yield f"  {'sum':<16} {_gib(memory.total):>6} GiB"


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f}"
