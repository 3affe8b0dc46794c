"""What the plan of a profile made of a value: the reason and the sum behind it.

Owns which derived numbers belong to a path of the stack. Pure: reads a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from imageworks.model.loaded import Path
from imageworks.plan.ir import Flag, Memory, Plan, PlannedModel
from imageworks.values import dataclass

NO_SUM = Memory()
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Derived:
    """A number that follows: its name, value and reason, and the sum where there is one."""

    name: str
    value: str
    why: str
    memory: Memory = NO_SUM


def derived(plan: Plan, path: Path) -> tuple[Derived, ...]:
    """What `plan` derives from the value at `path`, or by the name at its end."""
    if path[:1] == ("models",) and path[1:]:
        return tuple(_of_model(plan, str(path[1]), str(path[2]) if path[2:] else ""))
    if path[:2] == ("profiles", plan.profile) and path[2:] in {(), ("headroom",), ("match",), ("match", "vram")}:
        return tuple(_budgets(plan))
    if path[:1] == ("roles",) and len(path) == 2:  # noqa: PLR2004 - roles.R
        return tuple(_of_role(plan, str(path[1])))
    return ()


def _budgets(plan: Plan) -> Iterator[Derived]:
    for device in plan.devices:
        why = f"{_gib(device.capacity)} at the lower end of match.vram - {_gib(device.headroom)} headroom"
        yield Derived(f"budget of GPU {device.slot}", f"{_gib(device.budget)} GiB", why)


def _of_role(plan: Plan, name: str) -> Iterator[Derived]:
    role = next((role for role in plan.roles if role.name == name), None)
    for rank, item in enumerate(role.candidates if role else (), 1):
        yield Derived(f"answer {rank}", item.model, item.why)
    for other in role.rejected if role else ():
        yield Derived("cannot answer", other.model, other.reason)


def _of_model(plan: Plan, model_id: str, key: str) -> Iterator[Derived]:
    left_out = next((item for item in plan.unplaced if item.id == model_id), None)
    if left_out is not None:
        yield Derived("left out", left_out.code, left_out.reason, left_out.memory)
    model = plan.model(model_id)
    if model is not None and key in DERIVED:
        yield from DERIVED[key](model, plan)


def _memory(model: PlannedModel, plan: Plan) -> Iterator[Derived]:
    del plan
    yield Derived("memory", f"{_gib(model.memory.total)} GiB", model.placement.why, model.memory)


def _context(model: PlannedModel, plan: Plan) -> Iterator[Derived]:
    yield Derived("context", str(model.context), model.context_why)
    yield from _memory(model, plan)


def _concurrency(model: PlannedModel, plan: Plan) -> Iterator[Derived]:
    yield Derived("concurrency", str(model.concurrency), model.concurrency_why)
    yield from _memory(model, plan)


def _port(model: PlannedModel, plan: Plan) -> Iterator[Derived]:
    del plan
    flag = _flag(model, "--port")
    if model.port is not None:
        yield Derived("port", str(model.port), flag.why if flag else "the next free one of this profile")
    elif model.url is not None:
        yield Derived("address", model.url, "not started by us")


def _utilization(model: PlannedModel, plan: Plan) -> Iterator[Derived]:
    for name in ("--gpu-memory-utilization", "--kv-cache-memory-bytes"):
        flag = _flag(model, name)
        if flag is not None:
            yield Derived(name.lstrip("-"), flag.value or "", flag.why)
    yield from _memory(model, plan)


def _budget(model: PlannedModel, plan: Plan) -> Iterator[Derived]:
    yield from _memory(model, plan)
    yield from (item for item in _budgets(plan) if int(item.name.rpartition(" ")[2]) in model.placement.slots)


def _time(name: str, seconds: Callable[[PlannedModel], float]) -> Callable[[PlannedModel, Plan], Iterator[Derived]]:
    def answer(model: PlannedModel, plan: Plan) -> Iterator[Derived]:
        yield Derived(name, f"{seconds(model):g} s", f"in force on {plan.profile}")

    return answer


DERIVED: Mapping[str, Callable[[PlannedModel, Plan], Iterator[Derived]]] = {
    "": _memory,
    "context": _context,
    "concurrency": _concurrency,
    "vram": _memory,
    "memory": _memory,
    "placement": _memory,
    "port": _port,
    "pin": _port,
    "budget": _budget,
    "utilization": _utilization,
    "grace": _time("grace", lambda model: model.grace_s),
    "start_timeout": _time("start timeout", lambda model: model.start_timeout_s),
}
"""What can be asked about a model: its keys that the plan works on, and numbers that are never written."""


def _flag(model: PlannedModel, name: str) -> Flag | None:
    flags = model.launch.flags if model.launch is not None else ()
    return next((flag for flag in flags if flag.name == name), None)


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f}"
