"""Reading the inputs of a stack, and remembering them: hashes, texts, findings, and what could not be read.

Owns the order "bytes, text, tree" for every input file, models.lock and the prompt profiles. Judges no value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import field

from imageworks.diagnostics.model import Diagnostic, Fix, Label
from imageworks.model import lock as lock_file
from imageworks.model import prompt_files
from imageworks.model.lock import Lock
from imageworks.model.names import entries, texts
from imageworks.model.prompts import PromptProfile
from imageworks.source import files as source_files
from imageworks.source.files import Files
from imageworks.source.parse import Parsed, parse
from imageworks.source.text import SourceFile
from imageworks.source.tree import MapNode, ScalarNode, at
from imageworks.values import dataclass

LOCK = "models.lock"
Prompts = Mapping[tuple[str, str], PromptProfile]


@dataclass(slots=True)
class Reader:
    """Reads inputs and remembers their hashes, texts and what went wrong; `cut` are sections that were left out.

    `plugins` gives the names of the installed packages' targets.
    """

    files: Files
    plugins: Callable[[], Collection[str]] = tuple
    inputs: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    found: list[Diagnostic] = field(default_factory=list)
    cut: set[str] = field(default_factory=set)
    _prompts: dict[tuple[str, tuple[str, ...]], Prompts] = field(default_factory=dict)

    def source(self, name: str, named: Label | None = None) -> SourceFile | None:
        """The text of the file `name`, included at `named`; None with a finding when there is none."""
        try:
            data = self.files.read(name)
        except OSError as error:
            self.found.append(source_files.unreadable(name, error, named))
            return None
        self.inputs[name] = source_files.sha256(data)
        source, found = source_files.decode(name, data)
        self.texts[name] = source.text if source is not None else data.decode("utf-8", "replace")
        self.found += found
        return source

    def tree(self, name: str, named: Label | None = None) -> MapNode | None:
        """The tree of the YAML file `name`, included at `named`."""
        source = self.source(name, named)
        parsed = parse(source) if source is not None else Parsed(None, ())
        self.found += parsed.diagnostics
        if parsed.root is not None:
            self.cut |= parsed.cut
        return parsed.root

    def exists(self, name: str) -> bool:
        """False when there is no such file; true for one that cannot be read, so that this is told."""
        try:
            self.files.read(name)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def names(self, folder: str) -> tuple[str, ...]:
        """Names of the files below `folder`."""
        try:
            return self.files.names(folder)
        except OSError as error:
            self.found.append(source_files.unreadable(folder, error))
            return ()

    def lock(self) -> Lock:
        """models.lock; empty when there is none."""
        source = self.source(LOCK) if self.exists(LOCK) else None
        if source is None:
            return Lock()
        try:
            return lock_file.read(source.text)
        except ValueError as error:
            label = Label(source.span(0, 1), str(error))
            notes = ("it is written by imageworks up, never by hand",)
            fixes = (Fix("restore it from version control, or delete it: imageworks up writes it again"),)
            self.found.append(Diagnostic("IW113", f"{LOCK} cannot be used", label, notes=notes, fixes=fixes))
            return Lock()

    def templates(self, root: MapNode) -> Iterator[Diagnostic]:
        """Remember the chat templates that models name; a finding for each that cannot be read."""
        for name, _ in entries(root, "models"):
            path = at(root, "models", name, "template", "path")
            if isinstance(path, ScalarNode) and not path.text.startswith((".", "~", "/")):  # those its type refuses
                try:
                    self.inputs[path.text] = source_files.sha256(self.files.read(path.text))
                except OSError as error:
                    yield Diagnostic(
                        "IW308",
                        f"the chat template of {name} cannot be read",
                        Label(path.span, error.strerror or str(error)),
                        fixes=(
                            Fix("a path from the folder of stack.yaml"),
                            Fix("drop `template`: the weights have one"),
                        ),
                    )

    def prompts(self, root: MapNode) -> Prompts:
        """All prompt profiles of the stack's layers; one that cannot be read is told and left out."""
        path = at(root, "prompts", "path")
        if path is not None and (not isinstance(path, ScalarNode) or path.text.startswith((".", "~", "/"))):
            return {}  # refused by its type
        folder = path.text.strip("/") if isinstance(path, ScalarNode) else "prompts"
        layers = tuple(item.text for item in texts(root, "prompts", "layers")) or ("base", "app", "user")
        if (folder, layers) not in self._prompts:
            self._prompts[folder, layers] = self._read_prompts(folder, layers)
        return self._prompts[folder, layers]

    def _read_prompts(self, folder: str, layers: tuple[str, ...]) -> Prompts:
        trees: dict[tuple[str, tuple[str, str]], MapNode] = {}
        for name in self.names(folder):
            place = prompt_files.prompt_place(name, folder, layers)
            tree = self._prompt_tree(name) if place is not None else None
            if place is not None and tree is not None:
                trees[place] = tree
        profiles, found = prompt_files.assemble(trees, layers)
        self.found += found
        return profiles

    def _prompt_tree(self, name: str) -> MapNode | None:
        cut = set(self.cut)
        tree = self.tree(name)
        self.cut = cut  # sections of a prompt file are none of the stack
        return tree
