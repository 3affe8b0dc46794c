"""What a stack says to vLLM, compared with what that vLLM version takes.

Owns IW501 (a flag that does not work), IW502 (a flag that is derived), IW504 (a version without a table) and IW505 (calls
of tools that nobody reads). Flags are compared by the name that vLLM reads them as, so no spelling slips past. What a value
must look like is in `vllm_values`, what networks there are in `vllm_networks`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from imageworks.diagnostics.model import Applicability, Diagnostic, Edit, Fix, Label, Severity, Span
from imageworks.model.closest import closest, renaming
from imageworks.model.loaded import Loaded
from imageworks.model.vllm_table import PINNED, VllmFlag, VllmTable, newer_with, table
from imageworks.plan import vllm_networks
from imageworks.plan.contracts import images_max
from imageworks.plan.facts import Facts
from imageworks.plan.text import plural
from imageworks.plan.vllm_values import Complaint, complaint, unknown_word
from imageworks.values import dataclass

FLAGS = "vllm"
_GPUS = "the profile's GPUs and tensor_parallel_above"
DERIVED = {
    "host": "the loopback address, which the proxy uses",
    "port": "models.M.pin.port, or the number that unit and route share",
    "served-model-name": "models.M, the id that the readiness check asks for",
    "max-model-len": "models.M.context",
    "max-num-seqs": "models.M.concurrency",
    "gpu-memory-utilization": "the memory sum of the profile",
    "kv-cache-memory-bytes": "context x concurrency, or vram.kv",
    "limit-mm-per-prompt": "roles.R.images.max",
    "tensor-parallel-size": _GPUS,
    "pipeline-parallel-size": _GPUS,
    "data-parallel-size": _GPUS,
    "device-ids": _GPUS,
    "model": "models.M.source",
    "enable-sleep-mode": "models.M.sleep",
    "chat-template": "models.M.template",
}
"""Flags that are never typed, and what each follows from."""
_UNREACHABLE = "the proxy reaches the model by plain HTTP at its derived address"
REFUSED = {
    "config": "a second file of flags, which no proof has seen; vLLM reads it only in another spelling (vllm#43252)",
    "api-key": "the proxy is the only client and sends no key",
    "data-parallel-multi-port-external-lb": "it needs data-parallel-size, which is derived",
    **dict.fromkeys(("uds", "grpc", "grpc-port", "headless", "ssl-certfile", "ssl-keyfile"), _UNREACHABLE),
}
CALLS = "enable-auto-tool-choice"
NEEDS = {CALLS: "tool-call-parser", "enable-log-outputs": "enable-log-requests"}
"""Flag -> the one without which vLLM stops at start (`validate_parsed_serve_args`)."""
APART = {"enable-per-request-metrics": "disable-log-stats"}
"""Two that vLLM refuses together (`validate_parsed_serve_args`)."""
AT_LEAST = {"sse-keep-alive-interval": 0}
"""Smallest value (`validate_parsed_serve_args`)."""
PLUGINS = {"tool-call-parser": "tool-parser-plugin", "reasoning-parser": "reasoning-parser-plugin"}
"""Flags whose word vLLM checks at start, and the flag that loads further words."""


def check_stack(loaded: Loaded, facts: Mapping[str, Facts]) -> Iterator[Diagnostic]:
    """All findings about vLLM: the version once, then the flags and the network of each model."""
    version = loaded.stack.backends.vllm.version
    known = table(version)
    if known is None:
        yield _unknown_version(loaded, version)
        return
    for item in facts.values():
        if item.model.backend == "vllm":
            yield from check(loaded, item, known, images_max(loaded.stack, item)[0])
            yield from vllm_networks.check(loaded, item, known)
            yield from _untold(loaded, item, known)


def _unknown_version(loaded: Loaded, version: str) -> Diagnostic:
    place = loaded.value("backends", FLAGS, "version")
    return Diagnostic(
        "IW504",
        f"no flag table for vLLM {version}",
        Label(place, f"known: {' '.join(PINNED)}") if place else None,
        notes=("without its table no flag can be checked before vLLM starts",),
        fixes=(Fix(f"version: {list(PINNED)[-1]}"),),
    )


def check(loaded: Loaded, facts: Facts, known: VllmTable, images: int) -> Iterator[Diagnostic]:
    """All findings about the flags that one vLLM model types; `images` is how many its roles ask for."""
    model = _Model(loaded, facts.id, facts.model.vllm, known, images)
    yield from _single(model)
    yield from _together(model)


@dataclass(frozen=True, slots=True)
class _Model:
    """One model's flags with their places."""

    loaded: Loaded
    id: str
    typed: Mapping[str, Any]
    table: VllmTable
    images: int

    def key(self, name: str) -> Span | None:
        """Where the flag's name stands."""
        return self.loaded.key("models", self.id, FLAGS, name)

    def value(self, name: str) -> Span | None:
        """Where its value stands."""
        return self.loaded.value("models", self.id, FLAGS, name)

    def wrong(
        self, message: str, place: Span | None, label: str, *notes: str, fix: Fix | None, secondary: Label | None = None
    ) -> Diagnostic:
        """An IW501."""
        primary = Label(place, label) if place else None
        others, fixes = (secondary,) if secondary else (), (fix,) if fix else ()
        return Diagnostic("IW501", message, primary, notes=notes, fixes=fixes, secondary=others)


def _single(model: _Model) -> Iterator[Diagnostic]:
    """Each flag by itself; of two names for one flag only that they are two."""
    first: dict[str, str] = {}
    names = {name: flag for name in model.typed if (flag := model.table.find(name)) is not None}
    several = [flag.name for flag in names.values()]
    for name, value in model.typed.items():
        flag = names.get(name)
        if flag is None:
            yield _unnamed(model, name, value)
        elif several.count(flag.name) > 1:
            if flag.name in first:
                yield _twin(model, first[flag.name], name)
            first.setdefault(flag.name, name)
        elif flag.name in DERIVED:
            yield _derived(model, flag, name, value)
        else:
            if name != flag.name:
                yield _spelling(model, name, flag.name)
            yield from _valued(model, flag, name, value)


def _unnamed(model: _Model, name: str, value: Any) -> Diagnostic:
    """A name that is no flag: the negative of one, a part of one, one of another version, or misspelt."""
    place, version = model.key(name), model.table.version
    plain = name.lstrip("-").replace("_", "-")
    positive = model.table.find(plain[3:]) if plain.startswith("no-") else None
    if positive is not None and positive.negatable:
        meant = f"{positive.name}: {'true' if value is False else 'false'}"
        return model.wrong(
            f"`{name}` is the negative of a flag", place, f"write {meant}", fix=_replaced(model, name, meant)
        )
    whole = model.table.find(name.partition(".")[0]) if "." in name else None
    if whole is not None and whole.type in {"map", "json", "json_or_text"}:
        keys = f"{whole.name}: {{{name.partition('.')[2]}: …}}"
        return model.wrong(f"`{name}` is a part of a flag", place, "flags with parts are maps", fix=Fix(keys))
    if (other := _of_another_version(model, name, plain)) is not None:
        return other
    near = closest(plain, model.table.flags)
    label = f"did you mean `{near}`?" if near else f"vLLM {version} has no flag of this name"
    note = f"vLLM {version} stops at start on a flag it does not know"
    return model.wrong(
        f"unknown vLLM flag `{name}`", place, label, note, fix=_renamed(place, plain, near, model.table.flags)
    )


def _of_another_version(model: _Model, name: str, plain: str) -> Diagnostic | None:
    """A flag that vLLM had before the pinned version, or has since a later one that we know."""
    place, version = model.key(name), model.table.version
    names = [plain, plain.removeprefix("no-")]
    gone = next((model.table.removed[one] for one in names if one in model.table.removed), None)
    if gone is not None:
        label = f"use {gone.use}" if gone.use else f"vLLM {version} has no flag of this name"
        note = f"vLLM {version} stops at start on a flag it does not know"
        message = f"vLLM flag `{name}` was removed in {gone.version}"
        return model.wrong(message, place, label, note, fix=Fix(gone.use or "remove it"))
    new = next((flag for one in names if (flag := newer_with(one, version)) is not None), None)
    if new is None:
        return None
    pinned = model.loaded.value("backends", FLAGS, "version")
    return model.wrong(
        f"vLLM flag `{name}` is there since {new.since}",
        place,
        f"vLLM {version} stops at start on it",
        fix=Fix(f"remove it, or install vLLM {new.since} and say so in backends.vllm.version"),
        secondary=Label(pinned, "the version that is checked against") if pinned else None,
    )


def _replaced(model: _Model, name: str, meant: str) -> Fix:
    key, value = model.key(name), model.value(name)
    flag, _, truth = meant.partition(": ")
    edits = (Edit(key, flag), Edit(value, truth)) if key and value else ()
    return Fix(meant, Applicability.SAFE, edits)


def _renamed(place: Span | None, name: str, near: str | None, known: Iterable[str]) -> Fix:
    if near is None or place is None:
        return Fix("remove it" if near is None else near)
    return renaming(place, name, near, known)


def _twin(model: _Model, before: str, name: str) -> Diagnostic:
    place = model.key(before)
    return model.wrong(
        f"`{before}` and `{name}` are one flag",
        model.key(name),
        "second time; vLLM would take the last in silence",
        fix=Fix("keep one"),
        secondary=Label(place, "first here") if place else None,
    )


def _spelling(model: _Model, name: str, right: str) -> Diagnostic:
    place = model.key(name)
    return model.wrong(
        f"the flag `{name}` is spelt `{right}` here",
        place,
        "one spelling for one flag",
        fix=_renamed(place, right, right, (right,)),
    )


def _derived(model: _Model, flag: VllmFlag, name: str, value: Any) -> Diagnostic:
    origin = DERIVED[flag.name].replace("models.M", f"models.{model.id}")
    place = model.value(name)
    asked = f"the roles of this model say {plural(model.images, 'image')}"
    said = asked if flag.name == "limit-mm-per-prompt" else f"follows from {origin}"
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Diagnostic(
        "IW502",
        f"`{name}` is derived",
        Label(place, said) if place else None,
        notes=(f"a typed copy ({text}) would win over the derived value, and the plan's proofs would not hold",),
        fixes=(Fix(f"remove it, and change {origin} instead"),),
    )


def _valued(model: _Model, flag: VllmFlag, name: str, value: Any) -> Iterator[Diagnostic]:
    if flag.name in REFUSED:
        yield model.wrong(f"`{name}` cannot be used here", model.key(name), REFUSED[flag.name], fix=Fix("remove it"))
        return
    place = model.value(name)
    found = complaint(flag, value)
    if found is None and flag.name in AT_LEAST and int(value) < AT_LEAST[flag.name]:
        found = Complaint(f"{AT_LEAST[flag.name]} is the smallest")
    if found is not None:
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        yield model.wrong(f"`{name}` does not take `{shown}`", place, found.label, fix=_meant(found, place))
    elif (found := unknown_word(flag, value)) is not None:
        yield from _no_such_word(model, flag, found, value, place)
    if flag.deprecated:
        key = model.key(name)
        yield Diagnostic(
            "IW501",
            f"`{name}` is deprecated in vLLM {model.table.version}",
            Label(key, "works, but not for long") if key else None,
            Severity.WARNING,
            notes=(flag.deprecated,),
            fixes=(Fix("remove it"),),
        )


def _meant(found: Complaint, place: Span | None) -> Fix | None:
    edits = (Edit(place, found.meant),) if place else ()
    return Fix(found.meant, Applicability.SAFE, edits) if found.meant else None


def _no_such_word(
    model: _Model, flag: VllmFlag, found: Complaint, value: str, place: Span | None
) -> Iterator[Diagnostic]:
    """An error where vLLM checks the word itself and no plugin is loaded by a flag; else a warning."""
    plugin = PLUGINS.get(flag.name)
    if plugin in model.typed:
        return
    way = f", or load your own with {plugin}" if plugin else ", unless a plugin of yours brings it"
    fix = _meant(found, place)
    yield Diagnostic(
        "IW501",
        f"vLLM {model.table.version} brings no {flag.name} `{value}`",
        Label(place, found.label) if place else None,
        Severity.ERROR if plugin else Severity.WARNING,
        notes=(f"one of: {' '.join(flag.known)}{way}",),
        fixes=(fix,) if fix else (),
    )


def _untold(loaded: Loaded, facts: Facts, known: VllmTable) -> Iterator[Diagnostic]:
    """IW505: the model is said to call tools, vLLM is not told to let it."""
    told = any(
        value is not False and (flag := known.find(name)) and flag.name == CALLS
        for name, value in facts.model.vllm.items()
    )
    if "tools" not in facts.capabilities or told:
        return
    place = loaded.value("models", facts.id, "capabilities") or loaded.key("models", facts.id)
    yield Diagnostic(
        "IW505",
        f"{facts.id} calls tools, but vLLM is not told how to read its calls",
        Label(place, f"vLLM answers 400 to a request with tools unless {CALLS} is on") if place else None,
        Severity.WARNING,
        notes=(f"parsers of vLLM {known.version}: {' '.join(known.flags[NEEDS[CALLS]].known)}",),
        fixes=(Fix(f"vllm: {{{CALLS}: true, {NEEDS[CALLS]}: …}}, as the model's own page says; or leave out `tools`"),),
    )


def _together(model: _Model) -> Iterator[Diagnostic]:
    """Flags that need or refuse each other."""
    on = {
        flag.name: name
        for name, value in model.typed.items()
        if value is not False and (flag := model.table.find(name))
    }
    for name, needed in NEEDS.items():
        if name in on and needed not in on:
            place, flag = model.key(on[name]), model.table.flags[needed]
            value = "…" if flag.type != "switch" else "true"
            yield model.wrong(
                f"`{name}` needs `{needed}`", place, "vLLM stops at start without it", fix=Fix(f"add {needed}: {value}")
            )
    for name, other in APART.items():
        if name in on and other in on:
            first = model.key(on[other])
            secondary = Label(first, "and this") if first else None
            message = f"`{name}` and `{other}` exclude each other"
            yield model.wrong(
                message, model.key(on[name]), "vLLM stops at start", fix=Fix("keep one"), secondary=secondary
            )
