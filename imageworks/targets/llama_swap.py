"""llama-swap.yaml: the profile for people who run llama-swap instead of our proxy.

Owns the format, after llama-swap's own loader: commands are words without a shell, `${…}` is a macro wherever it
stands, the matrix says what may be loaded together. Ports and flags are those of the plan, so a backend is started
the same way by either. Ollama models are left out: llama-swap could not make room for them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NewType

from imageworks import contract
from imageworks.plan.ir import Flag, Plan, PlannedModel, Secret
from imageworks.targets.artifact import Artifact
from imageworks.targets.execspec import words
from imageworks.targets.llama_swap_sets import together
from imageworks.targets.places import HEADER, STATE
from imageworks.targets.quoting import Comment, QuotingError, comment, shell_word
from imageworks.targets.templating import render
from imageworks.values import dataclass

NAME = "llama-swap"
PATH = "llama-swap.yaml"
SHORTEST_HEALTH_CHECK_S = 15
"""llama-swap raises anything less to this."""
Yaml = NewType("Yaml", str)
"""A value in flow style, for a place that wants one."""

_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_MACRO = re.compile(r"\$\{[A-Za-z0-9_.-]+\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FOLDERS = ("models", "state", "store")
_TOKENS = ("stack", "python", *_FOLDERS)


@dataclass(frozen=True, slots=True)
class ModelView:
    """One entry under `models:`; every value is ready to be written."""

    id: Yaml
    why: Comment
    settings: tuple[tuple[str, Yaml], ...]


@dataclass(frozen=True, slots=True)
class ConfigView:
    """The whole file."""

    header: tuple[Comment, ...]
    settings: tuple[tuple[str, Yaml], ...]
    models: tuple[ModelView, ...]
    names: tuple[tuple[str, Yaml], ...]
    sets: tuple[tuple[str, Yaml], ...]
    preload: Yaml | None
    peers: tuple[tuple[Yaml, Yaml], ...]


def yaml(value: object) -> Yaml:
    r"""`value` in flow style: JSON, with everything escaped that YAML 1.2 does not call printable.

    >>> yaml({"a": ["\x85", 1]})
    '{"a": ["\\u0085", 1]}'
    """
    text = json.dumps(value, ensure_ascii=False)
    return Yaml(_UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def command_word(word: str, folders: Mapping[str, str]) -> str:
    r"""One word of `cmd`, for llama-swap's splitting; `folders` are the path tokens as they stand in a command.

    Raises QuotingError for line ends, at which llama-swap cuts a command before it splits it.

    >>> print(command_word("a ${PORT}", {}))
    'a $''{PORT}'
    """
    if "\n" in word or "\r" in word:
        raise QuotingError("llama-swap cannot carry line ends in a command", word)
    if "\0" in word:
        raise QuotingError("an argument cannot hold NUL", word)
    parts = contract.expand(word, {token: f"\0{token}\0" for token in _TOKENS}).split("\0")
    shown = (
        shell_word(part).replace("${", "$''{") if index % 2 == 0 else folders[part] for index, part in enumerate(parts)
    )
    return "".join(one for one in shown if one != "''") or "''"


def problems(plan: Plan) -> Iterator[tuple[PlannedModel, str]]:
    """What this format cannot carry of `plan`'s models, each with the model."""
    for model in plan.models:
        macro = next((name for name in model.aliases if _MACRO.search(name)), None)
        if macro is not None:
            yield model, f"llama-swap would take the alias `{macro}` for a macro"
        for secret in _secrets(model):
            if secret.env is None:
                yield model, f"llama-swap reads secrets from variables only; {secret.name} is none"
        if model.launch is not None:
            if (text := next(filter(_MACRO.search, model.launch.env.values()), None)) is not None:
                yield model, f"llama-swap would take `{text}` in its environment for a macro"
            try:
                _command(model.launch.flags, _folders(plan))
            except QuotingError as error:
                yield model, error.rule


def _secrets(model: PlannedModel) -> Iterator[Secret]:
    yield from model.launch.secrets.values() if model.launch is not None else ()
    yield from (model.key,) if model.key is not None else ()


def _command(flags: Sequence[Flag], folders: Mapping[str, str]) -> str:
    return " ".join(command_word(word, folders) for flag in flags for word in words(flag))


def _folders(plan: Plan) -> Mapping[str, str]:
    """Path tokens in a command: the stack's folder is where llama-swap is started, the roots come from variables."""
    found = {"stack": ".", "python": "python3", "models": "models", "state": STATE, "store": _env("IMAGEWORKS_STORE")}
    for root in plan.roots:
        if root.name in found:
            found[root.name] = (
                _env(root.env) if root.env and _VARIABLE.fullmatch(root.env) else shell_word(root.default)
            )
    return found


def _env(name: str) -> str:
    return f'"${{env.{name}}}"'


def view(plan: Plan) -> ConfigView:
    """What the template needs. Raises QuotingError for what `problems` reports."""
    here = [model for model in plan.models if model.launch is not None and model.port is not None]
    folders = _folders(plan)
    sets = together(plan, here)
    short = {model.id: f"m{number}" for number, model in enumerate(here, 1)}
    resident = [model.id for model in here if model.id in plan.policy.resident]
    waits = [math.ceil(model.start_timeout_s) for model in here]
    return ConfigView(
        header=tuple(map(comment, _header(plan, here, folders))),
        settings=(
            ("healthCheckTimeout", yaml(max(SHORTEST_HEALTH_CHECK_S, *waits, 0))),
            ("unloadTimeout", yaml(math.ceil(plan.stop_wait_s))),
        ),
        models=tuple(_model(plan, model, folders, _roles(plan, here)) for model in here),
        names=tuple((short[model.id], yaml(model.id)) for model in here),
        sets=tuple(
            (f"s{number}", yaml(" & ".join(short[one] for one in found))) for number, found in enumerate(sets, 1)
        ),
        preload=yaml(resident) if resident else None,
        peers=tuple(
            (yaml(model.id), yaml({"proxy": model.url, **_api_key(model), "models": [model.served_name]}))
            for model in plan.models
            if model.placement.kind == "remote" and model.url is not None
        ),
    )


def _api_key(model: PlannedModel) -> Mapping[str, str]:
    return {"apiKey": f"${{env.{model.key.env}}}"} if model.key is not None else {}


def _header(plan: Plan, here: Sequence[PlannedModel], folders: Mapping[str, str]) -> Iterator[str]:
    yield f"{plan.stack} on {plan.profile}, for llama-swap"
    yield HEADER
    yield f"plan sha256:{plan.hash}"
    text = " ".join(_command(model.launch.flags, folders) for model in here if model.launch is not None)
    needed = list(dict.fromkeys(re.findall(r"\$\{env\.([A-Za-z0-9_]+)\}", text)))
    variables = f", with {', '.join(needed)} set to folders" if needed else ""
    yield f"start llama-swap in the stack's folder{variables}"
    for model in plan.models:
        if model.backend == "ollama":
            yield f"not here: {model.id}; Ollama loads it by itself, and nothing would make room for it"
        elif model.sampling and model.launch is not None:
            yield f"not here: sampling of {model.id}; llama-swap can only force values, ours fill in what a request leaves out"


def _roles(plan: Plan, here: Sequence[PlannedModel]) -> Mapping[str, list[str]]:
    """Model id -> the roles it answers first among the models of this file."""
    known = {model.id for model in here}
    found: dict[str, list[str]] = {}
    for role in plan.roles:
        best = next((item.model for item in role.candidates if item.model in known), None)
        if best is not None:
            found.setdefault(best, []).append(f"role:{role.name}")
    return found


def _model(plan: Plan, model: PlannedModel, folders: Mapping[str, str], roles: Mapping[str, list[str]]) -> ModelView:
    assert model.launch is not None  # noqa: S101 - `view` looks at nothing else
    kept = model.pinned or model.id in plan.policy.resident
    env = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, model.launch.slots)),
        **model.launch.env,
        **{name: f"${{env.{secret.env}}}" for name, secret in model.launch.secrets.items()},
    }
    settings: dict[str, object] = {
        "cmd": _command(model.launch.flags, folders),
        "proxy": f"http://{model.host}:{model.port}",
        "checkEndpoint": "/v1/models" if model.backend == "openai" else "/health",
        "ttl": 0 if kept else max(1, math.ceil(model.grace_s)),
        "aliases": [*model.aliases, *roles.get(model.id, [])],
        "env": [f"{name}={value}" for name, value in sorted(env.items())],
        "concurrencyLimit": model.concurrency + plan.proxy.queue,
    }
    if model.served_name != model.id:
        settings["useModelName"] = model.served_name
    return ModelView(
        yaml(model.id), comment(model.placement.why), tuple((key, yaml(item)) for key, item in settings.items())
    )


def emit(plan: Plan, plans: Sequence[Plan]) -> Iterable[Artifact]:
    """One file."""
    del plans
    yield Artifact(PATH, render("llama-swap.yaml.j2", view(plan)))
