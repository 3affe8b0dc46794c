"""The front end: files -> a loaded stack, or every reason why not.

Owns the order of the stages: read, parse, lay over the built-in layer, decode, check names, read the lock and the
prompts. Never raises for what a person wrote. Looks at no hardware, clock, environment or network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from imageworks.diagnostics.model import Diagnostic, Label
from imageworks.model import lock as lock_file
from imageworks.model import prompt_files
from imageworks.model.check import check
from imageworks.model.decode import decode, places, without_empty
from imageworks.model.layers import BUILT_IN, built_in, over_built_in
from imageworks.model.loaded import Loaded
from imageworks.model.lock import Lock
from imageworks.model.names import entries, texts
from imageworks.model.prompts import PromptProfile
from imageworks.model.scalars import slug
from imageworks.source import files as source_files
from imageworks.source.files import Files
from imageworks.source.parse import Parsed, parse
from imageworks.source.text import SourceFile
from imageworks.source.tree import MapNode, ScalarNode, at

LOCK = "models.lock"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What loading gave: a stack when there is no error, all findings, and the texts that their spans point into."""

    loaded: Loaded | None
    diagnostics: tuple[Diagnostic, ...]
    texts: Mapping[str, str]


@dataclass(slots=True)
class _Reader:
    """Reads inputs and remembers their hashes, texts and what went wrong."""

    files: Files
    inputs: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    found: list[Diagnostic] = field(default_factory=list)

    def source(self, name: str) -> SourceFile | None:
        """The text of the file `name`; None with a finding when there is none."""
        try:
            data = self.files.read(name)
        except OSError as error:
            self.found.append(source_files.unreadable(name, error))
            return None
        self.inputs[name] = source_files.sha256(data)
        source, found = source_files.decode(name, data)
        self.texts[name] = source.text if source is not None else data.decode("utf-8", "replace")
        self.found += found
        return source

    def tree(self, name: str) -> Parsed:
        """The tree of the YAML file `name`."""
        source = self.source(name)
        parsed = parse(source) if source is not None else Parsed(None, ())
        self.found += parsed.diagnostics
        return parsed

    def names(self, folder: str) -> tuple[str, ...]:
        """Names of the files below `folder`."""
        try:
            return self.files.names(folder)
        except OSError as error:
            self.found.append(source_files.unreadable(folder, error))
            return ()


def load(stack_name: str, files: Files, folder_name: str) -> Outcome:
    """Load the stack `stack_name` of `files`; `folder_name` gives it a name where the file does not."""
    reader = _Reader(files)
    reader.texts[BUILT_IN] = built_in()[0].text
    parsed = reader.tree(stack_name)
    if parsed.root is None:
        return Outcome(None, tuple(reader.found), reader.texts)
    merged, about_layers = over_built_in(parsed.root, slug(folder_name) or "stack")
    root, about_empty = without_empty(merged)
    stack, about_types = decode(root, parsed.cut)
    profiles = _prompts(reader, root)
    reader.found += [*about_layers, *about_empty, *about_types, *check(root, parsed.cut, frozenset(profiles))]
    lock = _lock(reader)
    found = tuple(sorted(reader.found, key=_place))
    if stack is None or any(finding.is_error for finding in found):
        return Outcome(None, found, reader.texts)
    named = frozenset(name for name, _ in entries(parsed.root, "roles"))
    loaded = Loaded(stack, places(root), lock, named, profiles, dict(sorted(reader.inputs.items())))
    return Outcome(loaded, found, reader.texts)


def _place(finding: Diagnostic) -> tuple[str, int, str]:
    return (
        (finding.primary.span.file, finding.primary.span.start, finding.code)
        if finding.primary
        else ("", 0, finding.code)
    )


def _lock(reader: _Reader) -> Lock:
    try:
        reader.files.read(LOCK)
    except FileNotFoundError:
        return Lock()
    except OSError:
        pass  # told by `source` below
    source = reader.source(LOCK)
    if source is None:
        return Lock()
    try:
        return lock_file.read(source.text)
    except ValueError as error:
        label = Label(source.span(0, 1), str(error))
        reader.found.append(
            Diagnostic(
                "IW113", f"{LOCK} cannot be used", label, notes=("it is written by imageworks up, never by hand",)
            )
        )
        return Lock()


def _prompts(reader: _Reader, root: MapNode) -> Mapping[tuple[str, str], PromptProfile]:
    """All prompt profiles of the stack's layers; one that cannot be read is told and left out."""
    path = at(root, "prompts", "path")
    if path is not None and (not isinstance(path, ScalarNode) or path.text.startswith((".", "~", "/"))):
        return {}  # refused by its type
    folder = path.text.strip("/") if isinstance(path, ScalarNode) else "prompts"
    layers = tuple(item.text for item in texts(root, "prompts", "layers")) or ("base", "app", "user")
    trees: dict[tuple[str, tuple[str, str]], MapNode] = {}
    for name in reader.names(folder):
        place = prompt_files.prompt_place(name, folder, layers)
        tree = reader.tree(name).root if place is not None else None
        if place is not None and tree is not None:
            trees[place] = tree
    profiles, found = prompt_files.assemble(trees, layers)
    reader.found += found
    return profiles
