"""The generated JSON that both halves meet in: routes.json, exec/<program>.json, prompts.json, manifest.json.

Owns the frozen shapes and their schema numbers; the compiler writes them, the runtime and the launcher read
them. Standard library only, because the launcher starts every process through it. Later work adds keys and
never renames one; a file with a newer schema number is refused by `check_schema`.

Path tokens: a path in these files starts with one of `{stack} {state} {store} {python}` or `{models}` (a root
of the stack); `expand` resolves them. A literal text that happens to contain a token is written with `{lb}`
for its opening brace (`escape`), so expansion is exact for every string.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import field
from functools import cache, lru_cache
from json.encoder import encode_basestring
from math import isfinite
from typing import Any

from imageworks.values import dataclass

ROUTES_SCHEMA = 1
EXEC_SCHEMA = 1
PROMPTS_SCHEMA = 1
MANIFEST_SCHEMA = 1
DEVICES_SCHEMA = 1
STARTED_SCHEMA = 1

_TOKEN = re.compile(r"\{(stack|state|store|python|models|lb)\}")


class ContractError(ValueError):
    """A generated file cannot be used; the message is one sentence for the user."""


def check_schema(name: str, found: object, known: int) -> None:
    """Raise ContractError unless `found` is a schema number that this version can read."""
    if not isinstance(found, int):
        raise ContractError(f"{name} carries no schema number; run: imageworks compile")
    if found > known:
        raise ContractError(
            f"{name} was written by a newer ImageWorks (schema {found}, known: {known}); update this installation"
        )


def escape(text: str) -> str:
    """Write `text` so that `expand` returns exactly it.

    >>> escape('{"image":2}')
    '{"image":2}'
    >>> escape('{stack}')
    '{lb}stack}'
    """
    return _TOKEN.sub(lambda match: "{lb}" + match[0][1:], text)


def expand(text: str, tokens: Mapping[str, str]) -> str:
    """Replace the path tokens of `text`; `tokens` maps `stack` … `models` to directories. Raises KeyError for one that is not given."""
    return _TOKEN.sub(lambda match: "{" if match[1] == "lb" else tokens[match[1]], text)


@dataclass(frozen=True, slots=True)
class Root:
    """A directory of the machine: the environment variable `env` wins over `default` (relative to the stack)."""

    env: str | None
    default: str


@dataclass(frozen=True, slots=True)
class Need:
    """A path that must exist before a program can start, and the command that gets it."""

    path: str
    hint: str


@dataclass(frozen=True, slots=True)
class Secret:
    """A reference to a value that is read at start: one of a variable, a file (relative to the stack), a systemd credential."""

    name: str
    env: str | None = None
    file: str | None = None
    credential: str | None = None


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """What supervisord and systemd really execute, through `imageworks.launch`.

    `stack` is the way from the spec file's folder to the stack's folder. `env` holds fixed values, `pass_env`
    the names (or `PREFIX_*`) taken over from the parent; nothing else is inherited. `devices` are GPU slots of the plan.
    `secrets` maps a variable to the secret whose value it gets.
    """

    program: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    pass_env: tuple[str, ...]
    cwd: str
    stack: str
    roots: Mapping[str, Root]
    devices: tuple[int, ...]
    needs: tuple[Need, ...]
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    schema: int = EXEC_SCHEMA


@dataclass(frozen=True, slots=True)
class Route:
    """One model as the proxy sees it.

    `program` is the supervised program, None for a server that we do not own. `url` is the address of its
    OpenAI-compatible API without `/v1`. `gpu_mib` maps a GPU slot (as text) to MiB; `needs` as in ExecSpec. `sleep` is
    `none`, `level1` or `level2`, and what it holds then is `asleep_mib` on each GPU and `asleep_host_mib`; models of
    `never_with` are not loaded beside it. `image_tokens` is the most that one
    image of a role takes of the context, 0 where that is not known. Parameters of `strip` are taken out of every request, those of `set` and of
    the variant that was asked for are put in. `key` is the secret that a remote server wants as bearer token. `made_from` is
    the tag of an Ollama model; `served_name` is then one of our own, made from it with the planned context.
    `tool_calls` is `keep` or `normalise`: what becomes of calls that the model writes as text.
    """

    id: str
    backend: str
    program: str | None
    url: str
    served_name: str
    aliases: tuple[str, ...]
    capabilities: tuple[str, ...]
    quantization: str | None
    context: int
    concurrency: int
    images_max: int
    gpu_mib: Mapping[str, int]
    host_mib: int
    grace_s: float
    start_timeout_s: float
    stop_timeout_s: float
    pinned: bool
    sampling: Mapping[str, float | int]
    needs: tuple[Need, ...]
    sleep: str = "none"
    asleep_mib: Mapping[str, int] = field(default_factory=dict)
    asleep_host_mib: int = 0
    never_with: tuple[str, ...] = ()
    image_tokens: int = 0
    set: Mapping[str, Any] = field(default_factory=dict)
    strip: tuple[str, ...] = ()
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    key: Secret | None = None
    made_from: str | None = None
    tool_calls: str = "keep"


@dataclass(frozen=True, slots=True)
class RoleCandidate:
    """One line of a role table, best first."""

    model: str
    priority: int
    via: str
    vram_mib: int
    quantization: str | None
    why: str


@dataclass(frozen=True, slots=True)
class HistoryRule:
    """How much of a conversation is sent again, besides the current turn."""

    keep_turns: int
    keep_system: bool = True
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class History:
    """The rules of conversations with images, and of those with models that reason; None: all is sent."""

    vision: HistoryRule | None = field(default_factory=lambda: HistoryRule(0, max_bytes=32 << 20))
    reasoning: HistoryRule | None = None


@dataclass(frozen=True, slots=True)
class ImageRule:
    """What an image of a request may be; one with a longer edge is made smaller as a JPEG of that quality."""

    max_bytes: int = 20 << 20
    jpeg_quality: int = 85
    formats: tuple[str, ...] = ("jpeg", "png", "webp")
    max_edge_px: int | None = None


@dataclass(frozen=True, slots=True)
class RoleTable:
    """A role on one profile; requests of a higher `urgency` are served first. `rejected` maps a model that lists the role to the reason why it cannot serve it there."""

    candidates: tuple[RoleCandidate, ...]
    rejected: Mapping[str, str]
    requires: tuple[str, ...]
    images_max: int | None
    max_tokens: int | None
    deadline_s: float
    urgency: int = 0
    history: History = field(default_factory=History)
    images: ImageRule = field(default_factory=ImageRule)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU slot: MiB that may be used, and MiB of the smallest card the plan was made for."""

    slot: int
    budget_mib: int
    capacity_mib: int


@dataclass(frozen=True, slots=True)
class Policy:
    """How models share the machine. Of each set in `in_turn`, a resident starts when no other of them is starting."""

    strategy: str
    max_concurrent_models: int
    host_budget_mib: int
    resident: tuple[str, ...]
    in_turn: tuple[tuple[str, ...], ...] = ()
    health_check_interval_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Leases:
    """How leases and the sharing of GPUs are ruled. `mode` is `enforce` or `observe`."""

    mode: str = "enforce"
    ttl_s: float = 60.0
    queue_wait_s: float = 600.0
    min_residency_s: float = 20.0
    max_overtakes: int = 32


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A key of a client: where its value is found, what it may ask for (None: everything), and how much."""

    name: str
    secret: Secret
    roles: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    admin: bool = False
    rate_per_minute: float | None = None
    tokens_per_day: int | None = None
    concurrency: int | None = None
    expires: str | None = None


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """The proxy's own settings; `history` and `images` are for requests that name a model and no role.

    `completions` is the largest `n`; `parameters` are names that a client may set beyond the usual ones; images may be
    given by address where it leads to a host of `remote_images` (None: to any public one). With `keys`
    every client has to show one of them.
    """

    host: str
    port: int
    body_limit_bytes: int
    queue: int
    queue_wait_s: float
    drain_s: float
    completions: int = 4
    parameters: tuple[str, ...] = ()
    history: History = field(default_factory=History)
    images: ImageRule = field(default_factory=ImageRule)
    keys: tuple[ClientKey, ...] = ()
    remote_images: tuple[str, ...] | None = ()


@dataclass(frozen=True, slots=True)
class RouteTable:
    """routes.json: all the proxy ever reads. `roles` maps profile -> role -> table, for every profile."""

    stack: str
    profile: str
    plan_hash: str
    bundle_hash: str
    proxy: ProxySettings
    policy: Policy
    gpus: tuple[Gpu, ...]
    routes: Mapping[str, Route]
    unplaced: Mapping[str, str]
    roles: Mapping[str, Mapping[str, RoleTable]]
    roots: Mapping[str, Root] = field(default_factory=dict)
    leases: Leases = field(default_factory=Leases)
    schema: int = ROUTES_SCHEMA


class Rendered(str):
    """JSON that `to_json` made before: within another value it stands as it is, indented for its place."""

    __slots__ = ()


def to_json(value: Any) -> str:
    """Deterministic text of a contract value: sorted keys, two-space indent, UTF-8 as is, one trailing newline.

    What `json.dumps(indent=2, sort_keys=True, ensure_ascii=False)` writes for it, dataclasses as objects without the
    fields that have their default value (schema numbers always stand); several times as fast, because json's encoder in C cannot indent and `dataclasses.asdict` copies everything first.
    """
    return _text(value, "\n") + "\n"


def _text(value: Any, line: str) -> str:
    """`value` as JSON; `line` is a line end with the indentation of the line that it stands on."""
    kind: Any = type(value)
    scalar = _SCALARS.get(kind)
    if scalar is not None:
        return scalar(value)
    if isinstance(value, Rendered):
        return value.rstrip("\n").replace("\n", line)
    if isinstance(value, _ODD_SCALARS):
        return json.dumps(value, ensure_ascii=False)
    inner = line + "  "
    if isinstance(value, _LISTS):
        return f"[{inner}{f',{inner}'.join([_text(item, inner) for item in value])}{line}]" if value else "[]"
    fields = _fields(kind)
    if fields is None:
        found = [f"{_key(key)}: {_text(value[key], inner)}" for key in sorted(value)]
    else:
        given = ((getattr(value, name), key, silent) for name, key, silent in fields)
        always = dataclasses.MISSING
        found = [f"{key}: {_text(item, inner)}" for item, key, silent in given if silent is always or item != silent]
    return f"{{{inner}{f',{inner}'.join(found)}{line}}}" if found else "{}"


@lru_cache(maxsize=4096, typed=True)
def _key(key: Any) -> str:
    return encode_basestring(key if isinstance(key, str) else json.dumps(key))


_LISTS, _ODD_SCALARS = (list, tuple), (str, int, float)
_SCALARS: Mapping[type, Callable[[Any], str]] = {
    str: encode_basestring,
    int: repr,
    float: lambda value: repr(value) if isfinite(value) else json.dumps(value),
    bool: {False: "false", True: "true"}.__getitem__,
    type(None): lambda _: "null",
}
"""Of nearly all values; json itself writes what is only derived from these types."""


@cache
def _fields(kind: Any) -> tuple[tuple[str, str, Any], ...] | None:
    """A dataclass's fields, sorted: name, key, and the value that goes without saying; None for another type."""
    if not dataclasses.is_dataclass(kind):
        return None
    fields = sorted(dataclasses.fields(kind), key=lambda item: item.name)
    return tuple((item.name, encode_basestring(item.name), _silent(item)) for item in fields)


def _silent(item: dataclasses.Field[Any]) -> Any:
    if item.name == "schema":
        return dataclasses.MISSING
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def _secret(data: Any) -> Secret:
    return Secret(data["name"], data.get("env"), data.get("file"), data.get("credential"))


def exec_spec(text: str) -> ExecSpec:
    """Parse an exec spec. Raises ContractError with one sentence when it is not one."""
    try:
        data = json.loads(text)
        check_schema("the exec spec", data.get("schema"), EXEC_SCHEMA)
        known = {item.name for item in dataclasses.fields(ExecSpec)}
        values = {key: value for key, value in data.items() if key in known}
        values["roots"] = {name: Root(env=root["env"], default=root["default"]) for name, root in data["roots"].items()}
        values["needs"] = tuple(Need(path=need["path"], hint=need["hint"]) for need in data["needs"])
        values["secrets"] = {name: _secret(secret) for name, secret in data.get("secrets", {}).items()}
        for name in ("argv", "pass_env", "devices"):
            values[name] = tuple(data[name])
        return ExecSpec(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ContractError):
            raise
        raise ContractError(f"not an exec spec: {error}") from None
