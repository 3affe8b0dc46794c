"""The front end: files -> a loaded stack, or every reason why not.

Owns the order of the stages: read, parse, lay over each other, fill in variables, keep secrets out, decode, check
names, read the lock and the prompts. Never raises for what a person wrote. Looks at no hardware, clock, environment or network.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from imageworks.diagnostics.model import Diagnostic
from imageworks.model.check import check
from imageworks.model.decode import decode, origins, places, without_empty
from imageworks.model.includes import Gathered
from imageworks.model.layers import LOCAL, built_in, named, stacked
from imageworks.model.loaded import BUILT_IN, Loaded
from imageworks.model.lock import Lock
from imageworks.model.overrides import Layer, order, taken_out
from imageworks.model.plugin_targets import installed_only
from imageworks.model.prompts import PromptProfile
from imageworks.model.reading import Reader
from imageworks.model.scalars import slug
from imageworks.model.secret_places import guarded
from imageworks.model.stack import Stack
from imageworks.model.variables import fill
from imageworks.source.files import Files
from imageworks.source.tree import MapNode
from imageworks.values import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """What loading gave: a stack when there is no error, all findings, and the texts that their spans point into."""

    loaded: Loaded | None
    diagnostics: tuple[Diagnostic, ...]
    texts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Layers:
    """The layers of the named files and those of the machine, lowest first."""

    files: tuple[Layer, ...]
    local: tuple[Layer, ...]

    @property
    def overridden(self) -> Iterator[str]:
        """Profiles that see the stack differently, sorted, each once."""
        yield from sorted({name for layer in (*self.files, *self.local) for name in layer.overrides})


@dataclass(frozen=True, slots=True)
class _View:
    """The stack as one profile sees it, or as all others do; `stack` is None after errors."""

    root: MapNode
    stack: Stack | None
    named: frozenset[str]
    prompts: Mapping[tuple[str, str], PromptProfile]
    found: tuple[Diagnostic, ...]


def load(
    stack: str | Sequence[str],
    files: Files,
    folder_name: str,
    *,
    local: bool = False,
    plugins: Callable[[], Collection[str]] = tuple,
) -> Outcome:
    """Load the stack of the file `stack`, or of several, of which later ones win.

    `folder_name` gives it a name where the files do not. With `local` the machine's own layer, stack.local.yaml, lies
    above all where there is one. `plugins` gives the names of the installed packages' targets; it is called when the
    stack names one that is not ours.
    """
    reader = Reader(files, plugins)
    reader.texts[BUILT_IN] = built_in()[0].text
    layers = _layers(reader, (stack,) if isinstance(stack, str) else stack, local=local)
    if layers is None:
        return Outcome(None, _sorted(reader.found), reader.texts)
    name = slug(folder_name) or "stack"
    whole = _view(reader, layers, name)
    views = {each: _view(reader, layers, name, each) for each in layers.overridden if _has_profile(whole, each)}
    lock = reader.lock()
    found = _sorted([*reader.found, *whole.found, *_only_there(whole, views)])
    if any(finding.is_error for finding in found):
        return Outcome(None, found, reader.texts)
    changed = tuple(_changes(layers.local))
    overrides = {each: _loaded(view, lock, reader, changed, {}) for each, view in views.items()}
    return Outcome(_loaded(whole, lock, reader, changed, overrides), found, reader.texts)


def _layers(reader: Reader, stacks: Sequence[str], *, local: bool) -> _Layers | None:
    """All layers; None when one of the files could not be read."""
    gathered = Gathered(reader.tree)
    for name in stacks:
        gathered.add(name)
    count = len(gathered.files)
    if local and reader.exists(LOCAL):
        gathered.add(LOCAL)
    reader.found += gathered.found
    if not gathered.complete:
        return None
    layers = []
    for file in gathered.files.values():
        layer, found = taken_out(file.root)
        reader.found += found
        layers.append(layer)
    return _Layers(tuple(layers[:count]), tuple(layers[count:]))


def _view(reader: Reader, layers: _Layers, name: str, profile: str | None = None) -> _View:
    trees = order(layers.files, layers.local, profile)
    merged, about_layers = stacked(trees, name)
    merged = MapNode(merged.entries, layers.files[-1].root.span)
    filled, about_variables = fill(merged)
    kept, about_secrets = guarded(filled, [text for file, text in reader.texts.items() if file != BUILT_IN])
    known, about_targets = installed_only(kept, reader.plugins)
    root, about_empty = without_empty(known)
    cut = frozenset(reader.cut)
    stack, about_types = decode(root, cut)
    prompts = reader.prompts(root)
    about_names = check(root, cut, frozenset(prompts))
    about_templates = reader.templates(root)
    about_values = (*about_variables, *about_secrets, *about_targets, *about_empty, *about_types)
    found = (*about_layers, *about_values, *about_names, *about_templates)
    return _View(root, stack, frozenset(named(trees, "roles")), prompts, found)


def _has_profile(view: _View, name: str) -> bool:
    profiles = view.root.get("profiles")
    return isinstance(profiles, MapNode) and name in profiles.entries


def _only_there(whole: _View, views: Mapping[str, _View]) -> Iterator[Diagnostic]:
    """What is found in a profile's own view and not in that of all."""
    told = {(item.code, item.primary, item.message) for item in whole.found}
    for view in views.values():
        for item in view.found:
            if (item.code, item.primary, item.message) not in told:
                yield item
        told |= {(item.code, item.primary, item.message) for item in view.found}


def _loaded(view: _View, lock: Lock, reader: Reader, local: tuple[str, ...], overrides: Mapping[str, Loaded]) -> Loaded:
    if view.stack is None:
        raise RuntimeError("a stack without errors has a type")
    inputs = dict(sorted(reader.inputs.items()))
    return Loaded(
        stack=view.stack,
        places=places(view.root),
        lock=lock,
        named_roles=view.named,
        prompt_profiles=view.prompts,
        inputs=inputs,
        origins=origins(view.root),
        overrides=overrides,
        local=local,
    )


def _changes(layers: Sequence[Layer]) -> Iterator[str]:
    """Dotted paths of what `layers` set, as written there."""
    for layer in layers:
        yield from _leaves(layer.root, "")
        for profile, override in layer.overrides.items():
            yield from _leaves(override, f"profiles.{profile}.override.")


def _leaves(node: MapNode, prefix: str) -> Iterator[str]:
    for key, entry in node.entries.items():
        if prefix == "" and key in {"version", "include"}:
            continue
        if isinstance(entry.value, MapNode) and entry.value.entries:
            yield from _leaves(entry.value, f"{prefix}{key}.")
        elif not isinstance(entry.value, MapNode):
            yield f"{prefix}{key}"


def _sorted(found: Sequence[Diagnostic]) -> tuple[Diagnostic, ...]:
    return tuple(sorted(dict.fromkeys(found), key=_place))


def _place(finding: Diagnostic) -> tuple[str, int, str]:
    if finding.primary is None:
        return "", 0, finding.code
    return finding.primary.span.file, finding.primary.span.start, finding.code
