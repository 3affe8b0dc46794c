"""routes.json: all the proxy ever reads.

Owns the projection of the plans onto `contract.RouteTable`: this profile's models, and the role tables of every
profile, so that a client may ask what another machine would answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from imageworks import contract
from imageworks.plan import ir
from imageworks.plan.ir import MIB, Plan, PlannedModel, PlannedRole
from imageworks.targets.artifact import Artifact
from imageworks.targets.execspec import secret

NAME = "routes"


def url(model: PlannedModel) -> str:
    """Address of the model's API without `/v1`. Raises ValueError for a plan that names neither a url nor a port."""
    if model.url is not None:
        return model.url
    if model.port is None:
        raise ValueError(f"{model.id} has neither a url nor a port")
    return f"http://{f'[{model.host}]' if ':' in model.host else model.host}:{model.port}"


def route(plan: Plan, model: PlannedModel) -> contract.Route:
    """One model as the proxy sees it."""
    launch = model.launch
    return contract.Route(
        id=model.id,
        backend=model.backend,
        program=launch.program if launch else None,
        url=url(model),
        served_name=_made_name(model) if _made(model) else model.served_name,
        aliases=model.aliases,
        capabilities=model.capabilities,
        quantization=model.quantization,
        context=model.context,
        concurrency=model.concurrency,
        images_max=model.images_max,
        gpu_mib={str(slot): mib for slot, mib in model.mib_per_slot().items()},
        host_mib=model.host_mib(),
        grace_s=model.grace_s,
        start_timeout_s=model.start_timeout_s,
        stop_timeout_s=plan.stop_wait_s,
        pinned=model.pinned,
        sampling=dict(model.sampling),
        needs=tuple(contract.Need(need.path, need.hint) for need in launch.needs) if launch else (),
        sleep=model.sleep,
        asleep_mib={str(slot): mib for slot, mib in model.asleep_mib_per_slot().items()},
        asleep_host_mib=-(-model.asleep_host // MIB),
        never_with=model.never_with,
        set=model.params_set,
        strip=model.params_strip,
        variants=model.variants,
        image_tokens=model.image_tokens,
        key=secret(model.key) if model.key else None,
        made_from=model.served_name if _made(model) else None,
        tool_calls=model.tool_calls,
    )


def _made(model: PlannedModel) -> bool:
    return model.backend == "ollama"


def _made_name(model: PlannedModel) -> str:
    """The tag with its context: Ollama's OpenAI endpoint takes no `num_ctx`, so the model that is asked must have it."""
    name, _, tag = model.served_name.partition(":")
    return f"imageworks/{name.replace('/', '-')}:{(tag or 'latest')[:60]}-{model.context}"


def role_table(role: PlannedRole) -> contract.RoleTable:
    """One role of one profile."""
    return contract.RoleTable(
        candidates=tuple(
            contract.RoleCandidate(one.model, one.priority, one.via, one.vram_mib, one.quantization, one.why)
            for one in role.candidates
        ),
        rejected={one.model: one.reason for one in role.rejected},
        requires=role.requires,
        images_max=role.images_max,
        max_tokens=role.max_tokens,
        deadline_s=role.deadline_s,
        urgency=role.urgency,
        history=_history(role.history),
        images=contract.ImageRule(*_values(role.images)),
    )


def role_tables(plans: Sequence[Plan]) -> Mapping[str, Mapping[str, contract.RoleTable]]:
    """All roles of all profiles."""
    return {plan.profile: {role.name: role_table(role) for role in plan.roles} for plan in plans}


def _history(rules: ir.History) -> contract.History:
    return contract.History(*(rule and contract.HistoryRule(*_values(rule)) for rule in _values(rules)))


def _client(key: ir.ClientKey) -> contract.ClientKey:
    name, given, *rest = _values(key)
    return contract.ClientKey(name, secret(given), *rest)


def _values(value: Any) -> list[Any]:
    """The fields of a dataclass in order: the plan's and the contract's have the same."""
    return [getattr(value, item.name) for item in dataclasses.fields(value)]


def table(plan: Plan, plans: Sequence[Plan]) -> contract.RouteTable:
    """The routing table of `plan` with the role tables of all `plans`."""
    proxy, policy = plan.proxy, plan.policy
    return contract.RouteTable(
        stack=plan.stack,
        profile=plan.profile,
        plan_hash=plan.hash,
        bundle_hash=plan.bundle.hash,
        proxy=contract.ProxySettings(
            proxy.host,
            proxy.port,
            proxy.body_limit,
            proxy.queue,
            proxy.queue_wait_s,
            proxy.drain_s,
            proxy.completions,
            proxy.parameters,
            _history(proxy.history),
            contract.ImageRule(*_values(proxy.images)),
            tuple(_client(key) for key in proxy.keys),
            proxy.remote_images,
        ),
        policy=contract.Policy(
            policy.strategy,
            policy.max_concurrent_models,
            policy.host_memory // MIB,
            policy.resident,
            policy.in_turn,
            policy.health_check_interval_s,
        ),
        gpus=tuple(contract.Gpu(one.slot, one.budget // MIB, one.capacity // MIB) for one in plan.devices),
        routes={model.id: route(plan, model) for model in plan.models},
        unplaced={one.id: one.reason for one in plan.unplaced},
        roles=role_tables(plans),
        leases=contract.Leases(*_values(plan.leases)),
        roots={root.name: contract.Root(env=root.env, default=root.default) for root in plan.roots},
    )


def emit(plan: Plan, plans: Sequence[Plan]) -> Iterable[Artifact]:
    """One file."""
    return Routes(plans).emit(plan, plans)


class Routes:
    """The target for all of `plans`: the role tables, most of the text and the same in every file, are rendered once."""

    NAME = NAME

    def __init__(self, plans: Sequence[Plan]) -> None:
        self._roles: Any = contract.Rendered(contract.to_json(role_tables(plans)))

    def emit(self, plan: Plan, plans: Sequence[Plan]) -> Iterable[Artifact]:
        """One file."""
        del plans
        yield Artifact("routes.json", contract.to_json(dataclasses.replace(table(plan, ()), roles=self._roles)))
