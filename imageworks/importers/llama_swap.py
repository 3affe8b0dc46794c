"""A llama-swap configuration -> a stack.

Owns the top level: macros, models, peers, defaults, and what is told about groups, keys and hooks. Which models fit
beside each other is derived here, so groups and matrix are dropped; a persistent group pins its members.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from imageworks.diagnostics.model import Diagnostic, Severity
from imageworks.importers import llama_swap_model
from imageworks.importers.draft import Compile, Draft, Imported, ModelDraft, finish
from imageworks.importers.folders import ENV_ROOT, Place, below, common_root, is_absolute
from imageworks.importers.llama_swap_model import Seen
from imageworks.importers.llama_swap_text import Macros, NotUnderstoodError, Part, macros
from imageworks.importers.names import Names
from imageworks.importers.report import Report
from imageworks.importers.yaml_text import Value
from imageworks.model.closest import closest
from imageworks.model.scalars import ID
from imageworks.source.parse import parse
from imageworks.source.text import SourceFile
from imageworks.source.tree import MapNode, ScalarNode, SeqNode, at

_ENV = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)\}")
HEAD = "Imported from a llama-swap configuration; what was changed on the way is in the import's report."
TOP = frozenset(
    {
        "models", "macros", "peers", "groups", "matrix", "routing", "hooks", "apiKeys", "globalTTL", "startPort",
        "healthCheckTimeout", "unloadTimeout", "logLevel", "logTimeFormat", "logToStdout", "logRequests",
        "metricsMaxInMemory", "captureBuffer", "store", "ui", "performance", "sendLoadingState",
        "includeAliasesInList", "upstream", "profiles", "selectors",
    }
)  # fmt: skip
MODEL = frozenset(
    {
        "cmd", "proxy", "aliases", "env", "ttl", "macros", "concurrencyLimit", "capabilities",
        *llama_swap_model.NO_KEY, *llama_swap_model.DERIVED,
    }
)  # fmt: skip


def convert(source: SourceFile, compile_text: Compile) -> Imported:
    """The stack of one llama-swap file. Never raises for what stands in it."""
    report, texts = Report(), {source.name: source.text}
    parsed = parse(source)
    report.found += (_softened(item) for item in parsed.diagnostics)
    broken = any(item.is_error for item in report.found)
    if broken or parsed.root is None or not isinstance(at(parsed.root, "models"), MapNode):
        reason = "its YAML is broken" if broken else "it has no map `models`"
        report.tell("IW800", f"{source.name} is not a llama-swap configuration", None, reason)
        return Imported(None, tuple(report.found), texts)
    part = Part(parsed.root, Macros(tuple(macros(parsed.root.get("macros")).items())), source)
    draft = Draft(HEAD)
    _tell_unknown(parsed.root, TOP, report)
    names = Names()
    pinned = frozenset(_persistent(part))
    seen = list(_models(part, pinned, names, report))
    _llamacpp(draft, seen, report)
    draft.models = [item.draft for item in seen]
    _defaults(draft, part)
    _root(draft, report)
    secrets: dict[str, Value] = {}
    draft.models += _peers(part, names, report, secrets)
    if secrets:
        draft.top["secrets"] = secrets
    _tell_top(part, names, report)
    return finish(draft, report, texts, compile_text)


def _softened(finding: Diagnostic) -> Diagnostic:
    """Anchors, merge keys and doubled keys are told, and cost only the models that use them."""
    return replace(finding, severity=Severity.WARNING) if finding.code in {"IW103", "IW104"} else finding


def _tell_unknown(node: MapNode, known: frozenset[str], report: Report) -> None:
    for name, entry in node.entries.items():
        if name not in known:
            near = closest(name, known)
            told = f"did you mean `{near}`? llama-swap ignores it as well" if near else "llama-swap does not know it"
            report.tell("IW805", f"unknown key `{name}`", entry.key, told)


def _models(part: Part, pinned: frozenset[str], names: Names, report: Report) -> Iterator[Seen]:
    node = at(part.node, "models")
    found = [(name, entry) for name, entry in node.entries.items()] if isinstance(node, MapNode) else []
    ids = {name: names.id(name, "model") for name, _ in found}
    for name, entry in found:
        model_id = ids[name]
        if not isinstance(entry.value, MapNode) or model_id is None:
            report.tell("IW802", f"{name} is left out: nothing of it can be a model", entry.key)
            continue
        _tell_unknown(entry.value, MODEL, report)
        own = Part(entry.value, part.macros.over(macros(entry.value.get("macros"))), part.source)
        seen = llama_swap_model.read(model_id, name, own, report, pinned=name in pinned)
        if seen is not None:
            seen.draft.span = entry.key
            _aliases(seen.draft, name, own, names, report)
            yield seen


def _aliases(draft: ModelDraft, name: str, part: Part, names: Names, report: Report) -> None:
    try:
        wanted = [name, *part.texts("aliases")]
    except NotUnderstoodError as error:
        report.tell("IW807", f"{name}: its aliases are not carried over: {error}", part.key("aliases"))
        wanted = [name]
    free, taken = names.aliases(item for item in wanted if item != draft.id)
    if free:
        draft.fields = {"aliases": free, **draft.fields}
    for item in taken:
        report.tell("IW804", f"{name}: `{item}` already names another model", part.key("aliases"))


def _llamacpp(draft: Draft, seen: Iterable[Seen], report: Report) -> None:
    """One llama-server for all: the most frequent program, by its bare name, and the most frequent threads."""
    engines = [item for item in seen if item.program is not None]
    if not engines:
        return
    programs = Counter(str(item.program) for item in engines)
    program = programs.most_common(1)[0][0]
    bare = program.rpartition("/")[2]
    backend: dict[str, Value] = {"command": bare}
    threads = Counter(item.threads for item in engines if item.threads)
    if threads:
        backend["threads"] = threads.most_common(1)[0][0] or 1
    draft.top["backends"] = {"llamacpp": backend}
    if is_absolute(program):
        folder = program.rpartition("/")[0]
        told = "a path holds on one machine only"
        report.tell("IW803", f"{bare} is looked up on PATH", None, told, fix=f"put {folder} on PATH")
    if len(programs) > 1 or len(threads) > 1:
        told = f"programs: {', '.join(programs)}; threads: {', '.join(map(str, threads)) or 'not said'}"
        report.tell("IW806", "the models do not share one llama-server", None, told, "one serves all of a stack")


def _defaults(draft: Draft, part: Part) -> None:
    found: dict[str, Value] = {}
    grace, start = part.number("globalTTL"), part.number("healthCheckTimeout")
    if grace:
        found["grace"] = f"{grace}s"
    if start:
        found["start_timeout"] = f"{start}s"
    if found:
        draft.top["defaults"] = found


def _persistent(part: Part) -> Iterator[str]:
    """Members of groups that others never unload: that is `keep: pinned`."""
    for node in (at(part.node, "groups"), at(part.node, "routing", "router", "settings", "groups")):
        for entry in node.entries.values() if isinstance(node, MapNode) else ():
            persistent, members = at(entry.value, "persistent"), at(entry.value, "members")
            if isinstance(persistent, ScalarNode) and persistent.text == "true" and isinstance(members, SeqNode):
                yield from (item.text for item in members.items if isinstance(item, ScalarNode))


def _root(draft: Draft, report: Report) -> None:
    """Absolute paths of all models under one root; a variable in front of them becomes the root's own."""
    written = [str(text) for model in draft.models for text in _paths(model).values()]
    root = common_root([Place(path) for path in written])
    variable = ENV_ROOT.match(root) if root is not None else None
    if variable is not None:
        root = variable[0]
        draft.top["roots"] = {"models": {"env": variable[1], "default": "models"}}
        report.tell("IW803", f"model files lie under ${variable[1]}, which is the models root now", None)
    elif root is not None:
        told = "the stack names files below this folder"
        report.tell("IW803", f"model files lie under {root}", None, told, fix=f"export IMAGEWORKS_MODELS={root}")
    for model in draft.models:
        for key, path in _paths(model).items():
            relative, under = below(str(path), root)
            if not under:
                report.tell("IW806", f"{model.id}: a file is wanted at `{relative}` below the models root", model.span)
            source = model.fields["source"]
            if isinstance(source, dict):
                source[key] = relative


def _paths(model: ModelDraft) -> dict[str, Value]:
    source = model.fields.get("source")
    found = source if isinstance(source, dict) else {}
    return {key: found[key] for key in ("path", "mmproj") if key in found and "hf" not in found}


def _peers(part: Part, names: Names, report: Report, secrets: dict[str, Value]) -> Iterator[ModelDraft]:
    """Models of other servers, with their keys as `secrets`; one whose name is no id cannot be reached from here."""
    peers = at(part.node, "peers")
    for peer, entry in peers.entries.items() if isinstance(peers, MapNode) else ():
        proxy, key, models = (at(entry.value, name) for name in ("proxy", "apiKey", "models"))
        for item in models.items if isinstance(models, SeqNode) else ():
            if not isinstance(item, ScalarNode) or not isinstance(proxy, ScalarNode):
                continue
            if not ID.fullmatch(item.text) or names.id(item.text, peer) != item.text:
                told = "the other server knows it by this name, and here it would be another"
                report.tell("IW802", f"{item.text} of peer {peer} is left out: not a free id", item.span, told)
                continue
            fields: dict[str, Value] = {"backend": "openai", "url": proxy.text}
            if isinstance(key, ScalarNode) and key.text:
                fields["key"] = {"secret": _key(peer, key, secrets, report)}
            yield ModelDraft(item.text, fields, item.span, f"peer {peer}")


def _key(peer: str, node: ScalarNode, secrets: dict[str, Value], report: Report) -> str:
    """Name of the secret that stands for a peer's key; a key in clear is told once and never copied."""
    name = re.sub(r"[^A-Z0-9]+", "_", f"{peer}_KEY".upper()).strip("_0123456789")
    variable = _ENV.fullmatch(node.text)
    source = {"env": variable[1] if variable else f"IMAGEWORKS_{name}"}
    while secrets.get(name, source) != source:
        name += "_2"
    if variable is None and name not in secrets:
        report.tell(
            "IW808", f"the key of peer {peer} is not copied", node.span, f"set {source['env']} to it before `up`"
        )
    secrets[name] = source
    return name


def _tell_top(part: Part, names: Names, report: Report) -> None:
    shared = [key for key in ("groups", "matrix", "routing") if key in part.node.entries]
    if shared:
        told = (
            "which models fit beside each other is derived and proved from their memory; persistent groups are pinned"
        )
        report.tell("IW801", f"derived, so dropped: {', '.join(shared)}", part.key(shared[0]), told)
    keys = at(part.node, "apiKeys")
    if isinstance(keys, SeqNode) and keys.items:
        numbers = ", ".join(str(number) for number, _ in enumerate(keys.items, 1))
        told = "the proxy answers to this machine only; keys for clients have no place in a stack yet"
        report.tell("IW808", f"apiKeys {numbers} are not copied", part.key("apiKeys"), told)
    preload = at(part.node, "hooks", "on_startup", "preload")
    for item in preload.items if isinstance(preload, SeqNode) else ():
        if not isinstance(item, ScalarNode):
            continue
        if item.text not in names.taken:
            report.tell(
                "IW805", f"preload names an unknown model `{item.text}`", item.span, "llama-swap drops it in silence"
            )
        else:
            fix = "groups: {day: {models: […], profiles: [YOUR PROFILE]}} keeps models loaded where they fit"
            report.tell("IW806", f"{item.text} was loaded at the start", item.span, fix=fix)
    unsaid = [key for key in ("profiles", "selectors", "upstream") if key in part.node.entries]
    if unsaid:
        report.tell("IW805", f"no key for {', '.join(unsaid)}", part.key(unsaid[0]))
