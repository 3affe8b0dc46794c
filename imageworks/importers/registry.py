"""The reference system's model registries -> a stack.

Owns the order of the translation: which entries count, which are one model, what each becomes. The single fields are
translated in `registry_entry`; the report names every entry that was repaired, merged or left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from imageworks.importers import abilities, registry_entry
from imageworks.importers.draft import Compile, Draft, Imported, ModelDraft, finish
from imageworks.importers.folders import Place, common_root
from imageworks.importers.names import Names
from imageworks.importers.registry_layers import Entry, layered, read
from imageworks.importers.report import Report
from imageworks.importers.yaml_text import Value
from imageworks.model.layers import built_in
from imageworks.source.text import SourceFile
from imageworks.source.tree import MapNode

HEAD = "Imported from a model registry of the reference system; what was changed on the way is in the import's report."
BACKENDS = {"vllm": "vllm", "ollama": "ollama", "gguf": "llamacpp"}
_TEST_NAME = re.compile(r"(?:test|testing|dummy|r)(?:$|[-_ ])|.*[-_ ](?:test|testing)(?:$|[-_ (])", re.IGNORECASE)


@dataclass(slots=True)
class _One:
    """Entries that are one model: the first says what it is, the others give their names."""

    main: Entry
    others: list[Entry] = field(default_factory=list)


def convert(curated: SourceFile, discovered: SourceFile | None, compile_text: Compile) -> Imported:
    """The stack of one or two registry files. Never raises for what stands in them."""
    report = Report()
    layers = [read(source, report) for source in (curated, discovered) if source is not None]
    texts = {source.name: source.text for source in (curated, discovered) if source is not None}
    if any(item.is_error for item in report.found):
        return Imported(None, tuple(report.found), texts)
    entries = layered(layers[0], layers[1] if len(layers) > 1 else ())
    kept = [entry for entry in entries if _counts(entry, report)]
    _tell_ports(kept, report)
    draft = Draft(HEAD)
    names = Names()
    named = [(names.id(one.main.name, str(one.main.text("backend"))), one) for one in _merged(kept, report)]
    root = common_root([Place(*place) for entry in kept if (place := registry_entry.place(entry)) is not None])
    if root is not None:
        told = "the paths of the registry hold on one machine; the stack names files below this folder"
        report.tell("IW803", f"model files lie under {root}", None, told, fix=f"export IMAGEWORKS_MODELS={root}")
    for model_id, one in named:
        if model_id is None:
            report.tell("IW802", f"{one.main.name} is left out: nothing of its name can be an id", one.main.span)
            continue
        model = registry_entry.model(model_id, one.main, root, report)
        if model is not None:
            _name(model, one, names, report)
            draft.models.append(model)
    _declare_roles(draft, report)
    return finish(draft, report, texts, compile_text)


def _counts(entry: Entry, report: Report) -> bool:
    """False, with the reason told, for entries that cannot or should not become a model."""
    backend = entry.text("backend") or "nothing"
    reason = ""
    if entry.get("deprecated") is True:
        reason = "it is deprecated"
    elif entry.get("metadata", "testing") or _TEST_NAME.match(entry.name):
        reason = "it is a test entry"
    elif backend not in BACKENDS and registry_entry.remote(entry) is None:
        reason = f"its backend is {backend}; known are {', '.join(BACKENDS)}"
    if reason:
        report.tell("IW802", f"{entry.name} is left out: {reason}", entry.span)
    return not reason


def _tell_ports(entries: Iterable[Entry], report: Report) -> None:
    """Ports are derived; two vLLM entries on one port could never run beside each other."""
    ports: dict[int, list[str]] = {}
    for entry in entries:
        port = entry.get("backend_config", "port")
        if isinstance(port, int) and not isinstance(port, bool) and entry.text("backend") != "ollama":
            ports.setdefault(port, []).append(entry.name)
    for port, names in sorted(ports.items()):
        if len(names) > 1:
            told = f"claimed by {', '.join(names)}; each gets a port of its own"
            report.tell("IW803", f"port {port} stands in {len(names)} entries", None, told)


def _merged(entries: Sequence[Entry], report: Report) -> list[_One]:
    """Entries of one Ollama tag become one model; one with roles speaks for the others, else the first."""
    found: list[_One] = []
    by_tag: dict[str, _One] = {}
    for entry in entries:
        tag = registry_entry.ollama_tag(entry)
        one = by_tag.get(tag) if tag is not None else None
        if one is None:
            one = _One(entry)
            found.append(one)
            if tag is not None:
                by_tag[tag] = one
        elif entry.get("roles") and not one.main.get("roles"):
            one.others.append(one.main)
            one.main = entry
        else:
            one.others.append(entry)
    for one in found:
        if one.others:
            names = " and ".join(item.name for item in one.others)
            told = f"both are the Ollama tag {registry_entry.ollama_tag(one.main)}; every name goes on working"
            report.tell("IW804", f"{names} and {one.main.name} are one model", one.main.span, told)
    return found


def _name(model: ModelDraft, one: _One, names: Names, report: Report) -> None:
    """Old names become aliases, in front of the other keys."""
    wanted = [
        name
        for entry in (one.main, *one.others)
        for name in (entry.name, *entry.texts("model_aliases"), entry.text("display_name") or "")
    ]
    free, taken = names.aliases(name for name in wanted if name != model.id)
    if free:
        model.fields = {"aliases": free, **model.fields}
    for name in taken:
        report.tell("IW804", f"{one.main.name}: `{name}` already names another model", one.main.span)


def _declare_roles(draft: Draft, report: Report) -> None:
    """Roles that are not built in are declared with what all their models can do."""
    profiles = built_in()[1].get("profiles")
    everywhere: list[Value] = list(profiles.entries) if isinstance(profiles, MapNode) else []
    uses = Counter(role for model in draft.models for role in _mapping(model.fields.get("roles")))
    for role in sorted(uses):
        if abilities.required(role) is not None:
            continue
        able = [
            set(_sequence(model.fields.get("capabilities")))
            for model in draft.models
            if role in _mapping(model.fields.get("roles"))
        ]
        requires: list[Value] = [*sorted(set.intersection(*able))] or ["chat"]
        draft.roles[role] = {"requires": requires, "may_be_missing_on": everywhere}
        told = f"declared with requires: {', '.join(map(str, requires))}, which all its models have"
        report.tell("IW806", f"role `{role}` is not built in", None, told, fix="say what it really requires")


def _mapping(value: Value | None) -> dict[str, Value]:
    return dict(value) if isinstance(value, dict) else {}


def _sequence(value: Value | None) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
