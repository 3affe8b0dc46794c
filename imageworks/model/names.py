"""Names inside the file: every reference must lead to what it names.

Owns references between roles, models, profiles, groups and prompts, and the uniqueness of request names and pinned
ports. Works on the tree, not on the typed stack, so that a mistake elsewhere hides none here. Sections that could
not be read are not guessed about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from imageworks.diagnostics.model import Diagnostic, Fix, Label, Span
from imageworks.model.closest import closest, renaming
from imageworks.model.loaded import BUILT_IN
from imageworks.model.scalars import ID, VARIABLE
from imageworks.source.tree import Entry, MapNode, ScalarNode, SeqNode, at
from imageworks.values import dataclass

KINDS = {"models": "model", "roles": "role", "profiles": "profile", "groups": "group", "secrets": "secret"}


@dataclass(frozen=True, slots=True)
class Declared:
    """Names of each kind with the spans of their keys; None for a section that could not be read."""

    names: Mapping[str, Mapping[str, Span] | None]

    def kind_of(self, name: str) -> str | None:
        """`role`, `model`, … when a name of any kind is declared."""
        return next((KINDS[section] for section, known in self.names.items() if known and name in known), None)


def declared(root: MapNode, cut: frozenset[str]) -> Declared:
    """What `root` declares; `cut` names sections that are incomplete."""
    return Declared({section: _names(root, section, cut) for section in KINDS})


def _names(root: MapNode, section: str, cut: frozenset[str]) -> Mapping[str, Span] | None:
    node = root.get(section)
    if section in cut or (node is not None and not isinstance(node, MapNode)):
        return None
    return {name: entry.key for name, entry in node.entries.items()} if isinstance(node, MapNode) else {}


def entries(root: MapNode, *path: str) -> Iterator[tuple[str, Entry]]:
    """Name and entry of the map at `path`; nothing when there is none."""
    node = at(root, *path)
    if isinstance(node, MapNode):
        yield from node.entries.items()


def texts(root: MapNode, *path: str) -> Iterator[ScalarNode]:
    """The texts of the list at `path`."""
    node = at(root, *path)
    if isinstance(node, SeqNode):
        yield from (item for item in node.items if isinstance(item, ScalarNode))


@dataclass(frozen=True, slots=True)
class Reference:
    """A name in a place that wants one of `section`."""

    text: str
    span: Span
    section: str
    code: str
    message: str
    reason: str
    beside: frozenset[str] = frozenset()
    """Names that stand beside it already, so that it cannot have been meant to be one of them."""


def references(root: MapNode) -> Iterator[Reference]:
    """Every reference of the file, wherever it stands."""
    for model, _ in entries(root, "models"):
        yield from _of_model(root, model)
    skipped = "unknown names in a group are never skipped"
    for group, _ in entries(root, "groups"):
        for item in texts(root, "groups", group, "models"):
            yield Reference(item.text, item.span, "models", "IW302", "group names an unknown model", skipped)
        for item in texts(root, "groups", group, "profiles"):
            yield Reference(item.text, item.span, "profiles", "IW302", "group names an unknown profile", skipped)
    for role, _ in entries(root, "roles"):
        yield from _of_role(root, role)
    for key, _ in entries(root, "proxy", "auth", "keys"):
        yield from _of_key(root, key)
    for stage, _ in entries(root, "prompts", "bind"):
        node = at(root, "prompts", "bind", stage, "role")
        if isinstance(node, ScalarNode):
            reason = f"{stage} would have nobody to ask"
            yield Reference(node.text, node.span, "roles", "IW701", "prompt is bound to an unknown role", reason)


def _of_model(root: MapNode, model: str) -> Iterator[Reference]:
    roles = dict(entries(root, "models", model, "roles"))
    for role, entry in roles.items():
        reason = f"a client asking role:{role} would never get this model"
        message = "model serves an undeclared role"
        yield Reference(role, entry.key, "roles", "IW301", message, reason, frozenset(roles))
    yield from _apart(root, model)
    yield from _secrets(root, model)
    same = at(root, "models", model, "source", "same_as")
    if isinstance(same, ScalarNode):
        reason = "its bytes are those of a declared model"
        yield Reference(same.text, same.span, "models", "IW302", "source is the same as an unknown model", reason)


def _apart(root: MapNode, model: str) -> Iterator[Reference]:
    groups = {name for name, _ in entries(root, "groups")}
    for item in texts(root, "models", model, "coexist", "never"):
        if item.text not in groups:
            reason = "it would be loaded beside whatever was meant"
            yield Reference(item.text, item.span, "models", "IW302", "kept apart from an unknown model", reason)


def _secrets(root: MapNode, model: str) -> Iterator[Reference]:
    places = (("key",), *(("env", name) for name, _ in entries(root, "models", model, "env")))
    for place in places:
        node = at(root, "models", model, *place, "secret")
        if isinstance(node, ScalarNode):
            reason = "nobody would know where its value is"
            yield Reference(node.text, node.span, "secrets", "IW305", "unknown secret", reason)


def _of_key(root: MapNode, key: str) -> Iterator[Reference]:
    secret = at(root, "proxy", "auth", "keys", key, "key", "secret")
    if isinstance(secret, ScalarNode):
        reason = f"nobody could show the key {key}"
        yield Reference(secret.text, secret.span, "secrets", "IW305", "unknown secret", reason)
    for section in ("roles", "models"):
        for item in texts(root, "proxy", "auth", "keys", key, "may", section):
            message = f"a key names an unknown {KINDS[section]}"
            yield Reference(item.text, item.span, section, "IW302", message, "its holder could never ask for it")


def _of_role(root: MapNode, role: str) -> Iterator[Reference]:
    for item in texts(root, "roles", role, "fallback"):
        reason = "it is asked when no own model can serve"
        yield Reference(item.text, item.span, "roles", "IW309", "unknown fallback role", reason)
    for item in texts(root, "roles", role, "may_be_missing_on"):
        message = "role may be missing on an unknown profile"
        yield Reference(item.text, item.span, "profiles", "IW302", message, "a misspelt profile would excuse nothing")


def dangling(root: MapNode, known: Declared) -> Iterator[Diagnostic]:
    """A finding for every reference that leads nowhere."""
    for reference in references(root):
        names = known.names[reference.section]
        if names is None or reference.text in names:
            continue
        if ID.fullmatch(reference.text) or reference.code == "IW701" or VARIABLE.fullmatch(reference.text):
            yield _unknown(reference, names, known)


def _unknown(reference: Reference, names: Mapping[str, Span], known: Declared) -> Diagnostic:
    want = KINDS[reference.section]
    other = known.kind_of(reference.text)
    candidates = names.keys() - reference.beside
    near = closest(reference.text, candidates)
    fixes: tuple[Fix, ...] = ()
    label = f"no {want} of this name"
    if other is not None:
        label = f"`{reference.text}` is a {other}, this wants a {want}"
    elif near is not None:
        line = _line(names[near], reference.span.file)
        label = f"no {want} of this name; did you mean `{near}`{line}?"
        fixes = (renaming(reference.span, reference.text, near, candidates),)
    else:
        fixes = (Fix(f"declare it under {reference.section}:, or remove it"),)
    return Diagnostic(
        reference.code, reference.message, Label(reference.span, label), notes=(reference.reason,), fixes=fixes
    )


def _line(span: Span, file: str) -> str:
    """Where `span` is, for someone who looks at `file`; nothing for what is built in."""
    if span.file == BUILT_IN:
        return ""
    return f" (line {span.line})" if span.file == file else f" ({span.file}:{span.line})"


def cycles(root: MapNode) -> Iterator[Diagnostic]:
    """Fallback roles (IW309) and same_as models (IW307) that lead back to themselves; one finding a cycle."""
    fallback = {
        role: [(item.text, item.span) for item in texts(root, "roles", role, "fallback")]
        for role, _ in entries(root, "roles")
    }
    for way, span in _cycles(fallback):
        yield Diagnostic(
            "IW309",
            "fallback roles lead in a circle",
            Label(span, " -> ".join(way)),
            fixes=(Fix("remove one of them"),),
        )
    same: dict[str, list[tuple[str, Span]]] = {}
    for model, _ in entries(root, "models"):
        node = at(root, "models", model, "source", "same_as")
        same[model] = [(node.text, node.span)] if isinstance(node, ScalarNode) else []
    for way, span in _cycles(same):
        yield Diagnostic(
            "IW307",
            "same_as leads in a circle",
            Label(span, " -> ".join(way)),
            fixes=(Fix("one of them needs a source of its own"),),
        )


def _cycles(edges: Mapping[str, list[tuple[str, Span]]]) -> Iterator[tuple[tuple[str, ...], Span]]:
    """Each cycle once, with the edge that closes it."""
    done: set[str] = set()
    for start in edges:
        stack: list[tuple[str, Iterator[tuple[str, Span]]]] = [(start, iter(edges[start]))]
        way = [start]
        while stack:
            target, span = next(stack[-1][1], (None, None))
            if target is None or span is None:
                done.add(stack.pop()[0])
                way.pop()
            elif target in way:
                yield (*way[way.index(target) :], target), span
            elif target in edges and target not in done:
                stack.append((target, iter(edges[target])))
                way.append(target)


def clashes(root: MapNode) -> Iterator[Diagnostic]:
    """Two models under one request name, or under one program name (IW303); two pins of one port (IW314)."""
    yield from _twice(
        _slugs(root),
        "IW303",
        "two ids, one program name",
        "its program has the same name",
        "rename one; `.` and `_` become `-` in program names",
    )
    fix = "keep one; two models for one task are two priorities of one role"
    yield from _twice(_request_names(root), "IW303", "one name, two models", "also answers to this", fix)
    yield from _twice(
        _pins(root), "IW314", "one port, two models", "pinned here too", "remove one of the pins; ports are derived"
    )


def _slugs(root: MapNode) -> Iterator[tuple[str, str, Span]]:
    for model, entry in entries(root, "models"):
        yield model.replace(".", "-").replace("_", "-"), f"{model} is declared", entry.key


def _request_names(root: MapNode) -> Iterator[tuple[str, str, Span]]:
    for model, entry in entries(root, "models"):
        yield model, f"{model} answers to it", entry.key
    for model, _ in entries(root, "models"):
        for variant, entry in entries(root, "models", model, "variants"):
            yield f"{model}:{variant}", f"{model} answers to it", entry.key
        for alias in texts(root, "models", model, "aliases"):
            yield alias.text, f"{model} answers to it", alias.span


def _pins(root: MapNode) -> Iterator[tuple[str, str, Span]]:
    for model, _ in entries(root, "models"):
        port = at(root, "models", model, "pin", "port", "value")
        if isinstance(port, ScalarNode):
            yield port.text.lstrip("0_").replace("_", ""), f"{model} has it", port.span


def _twice(
    found: Iterable[tuple[str, str, Span]], code: str, message: str, label: str, fix: str
) -> Iterator[Diagnostic]:
    first: dict[str, tuple[str, Span]] = {}
    for name, told, span in found:
        if name in first:
            yield Diagnostic(
                code, message, Label(span, label), secondary=(Label(first[name][1], first[name][0]),), fixes=(Fix(fix),)
            )
        else:
            first[name] = (told, span)
