"""From a field of the plan to the keys of stack.yaml that decide it.

Owns that one table: the natural key first, then the layers that stand in for it. Knows names only; whether a key is
written, and where, is asked elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

Key = tuple[str, ...]

_LAYERED: Mapping[str, str] = {"grace_s": "grace", "start_timeout_s": "start_timeout"}
"""Fields of a model that a profile and the defaults may give."""
_DEFAULTED = ("context", "concurrency")
_MODEL: Mapping[str, Key] = {
    "port": ("pin", "port", "value"),
    "memory": ("vram",),
    "pinned": ("keep",),
    "package": ("source",),
    "served_name": ("source",),
    "asleep": ("sleep",),
    "asleep_host": ("sleep",),
    "never_with": ("coexist", "never"),
    "params_set": ("params", "set"),
    "params_strip": ("params", "strip"),
    "template_sha256": ("template", "path"),
    "key": ("key", "secret"),
}
_FLAG: Mapping[str, Key] = {"threads": ("backends", "llamacpp", "threads")}
_PROXY: Mapping[str, Key] = {
    "host": ("bind",),
    "port": ("bind",),
    "body_limit": ("limits", "body"),
    "queue": ("limits", "queue"),
    "queue_wait_s": ("limits", "queue_wait"),
    "completions": ("limits", "completions_per_request"),
    "parameters": ("parameters", "allow"),
}
_ROLE: Mapping[str, Key] = {
    "images_max": ("images", "max"),
    "max_edge_px": ("images", "max_edge"),
    "deadline_s": ("deadline",),
}
_OPTION: Mapping[str, Key] = {
    "supervisord": ("supervisord", "enabled"),
    "systemd": ("systemd", "enabled"),
    "systemd_scope": ("systemd", "scope"),
    "systemd_prefix": ("systemd", "prefix"),
    "vllm_scripts": ("vllm_scripts", "enabled"),
}


def keys(profile: str, path: Key) -> tuple[Key, ...]:
    """Keys of stack.yaml behind the field `path` of the plan of `profile`, at least one, the natural one first.

    >>> keys("small", ("models", "qwen", "context"))
    (('models', 'qwen', 'context'), ('defaults', 'context'))
    >>> keys("small", ("policy", "strategy"))
    (('profiles', 'small', 'strategy'),)
    """
    section, *rest = path
    match section, rest:
        case "models", [model, field, *inner]:
            return _of_model(profile, model, field, tuple(inner))
        case (("models" | "unplaced"), [model, *_]):
            return (("models", model),)
        case "roles", [role, *inner]:
            return _of_role(role, tuple(inner))
        case "leases", [field, *_]:
            return (("leases", field.removesuffix("_s")),)
        case "policy", [field, *_]:
            return (_of_policy(profile, field),)
        case "devices", [_, field, *_]:
            return (("profiles", profile, "headroom"),) if field == "headroom" else (_vram(profile),)
        case "devices", _:
            return (("profiles", profile, "match"),)
        case "proxy", [field, *_]:
            return (("proxy", *_PROXY.get(field, ())),)
        case "options", [field, *inner]:
            return (("targets", *(inner if field == "plugins" else _OPTION.get(field, ()))),)
    return _whole(section, tuple(rest))


def _whole(section: str, rest: Key) -> tuple[Key, ...]:
    named = {"bundle_hash": ("prompts",), "stack": ("name",), "profile": ("profiles",)}
    return (named.get(section, (section, *rest[:1])),)


def _of_policy(profile: str, field: str) -> Key:
    elsewhere: Mapping[str, Key] = {
        "health_check_interval_s": ("defaults", "health_check_interval"),
        "in_turn": ("groups",),
        "resident": ("profiles", profile),
    }
    return elsewhere.get(field, ("profiles", profile, field))


def _vram(profile: str) -> Key:
    return ("profiles", profile, "match", "vram")


def _of_model(profile: str, model: str, field: str, inner: Key) -> tuple[Key, ...]:
    own = ("models", model)
    if field in _LAYERED:
        name = _LAYERED[field]
        return ((*own, name), ("profiles", profile, name), ("defaults", name))
    if field in _DEFAULTED:
        return ((*own, field), ("defaults", field))
    if field == "launch" and len(inner) > 1 and inner[0] in {"env", "secrets"}:
        return ((*own, "env", inner[1]), own)
    if field == "launch":
        flag = inner[1].lstrip("-") if inner[:1] == ("flags",) and len(inner) > 1 else None
        return (_FLAG.get(flag, (*own, "vllm", flag)), own) if flag else (own,)
    inside = inner if field == "sampling" else ()
    return ((*own, *_MODEL.get(field, (field,)), *inside),)


def _of_role(role: str, inner: Key) -> tuple[Key, ...]:
    match inner:
        case ("candidates", model, "priority") if model != "order":
            return (("models", model, "roles", role),)
        case (("candidates" | "rejected"), model, *_) if model != "order":
            return (("models", model, "roles", role), ("models", model))
        case ("candidates", *_):
            return (("roles", role),)
    return (("roles", role, *_ROLE.get(inner[0], inner[:1])),) if inner else (("roles", role),)
