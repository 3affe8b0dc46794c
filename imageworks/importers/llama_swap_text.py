"""Texts of a llama-swap configuration: macros filled in, a command split into words.

Owns the rules of llama-swap's own loader (its `internal/config`): macros are replaced from the last declared to the
first, those of a model win; a command is split like POSIX words without a shell, comment lines left out.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from imageworks.diagnostics.model import Span
from imageworks.source.text import SourceFile
from imageworks.source.tree import MapNode, Node, ScalarNode, SeqNode, at

_MACRO = re.compile(r"\$\{([a-zA-Z0-9_-]+)\}")
_OWN = ("PORT", "MODEL_ID", "PID")
LONGEST = 1 << 16
"""Characters of an expanded text; macros that name each other can grow without an end."""


class NotUnderstoodError(ValueError):
    """A text means something here only a shell, or nobody, can tell; `at` is the offending part of the source."""

    def __init__(self, reason: str, at: str = "") -> None:
        super().__init__(reason)
        self.at = at


@dataclass(frozen=True, slots=True)
class Macros:
    """Names and texts in the order of declaration."""

    pairs: tuple[tuple[str, str], ...] = ()

    def over(self, own: Mapping[str, str]) -> Macros:
        """These macros with a model's own: one of the same name is replaced where it stands, others come last."""
        replaced = tuple((name, own.get(name, text)) for name, text in self.pairs)
        known = {name for name, _ in self.pairs}
        return Macros((*replaced, *((name, text) for name, text in own.items() if name not in known)))

    def expand(self, text: str) -> str:
        """`text` with macros filled in; PORT, MODEL_ID and PID stay. Raises NotUnderstoodError for unknown ones."""
        for name, value in reversed(self.pairs):
            text = text.replace(f"${{{name}}}", value)
            if len(text) > LONGEST:
                raise NotUnderstoodError("its macros grow beyond any command line")
        unknown = next((match for match in _MACRO.finditer(text) if match[1] not in _OWN), None)
        if unknown is not None:
            raise NotUnderstoodError(f"no macro is called `{unknown[1]}`", unknown[0])
        return text


def macros(node: Node | None) -> dict[str, str]:
    """The macros of a `macros:` map."""
    found = node.entries if isinstance(node, MapNode) else {}
    return {name: entry.value.text for name, entry in found.items() if isinstance(entry.value, ScalarNode)}


_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "fish", "ash", "ksh", "cmd", "powershell", "pwsh"})
_OPERATORS = frozenset({"|", "||", "&", "&&", ";", ">", ">>", "<", "2>&1", "2>", "&>"})


def words(text: str) -> list[str]:
    """The words of a command. Raises NotUnderstoodError for shell syntax, open quotes and an empty command."""
    lines = [line for line in text.splitlines() if not line.strip().startswith("#")]
    joined = "\n".join(line.rstrip()[:-1] + " " if line.rstrip().endswith("\\") else line for line in lines)
    try:
        found = shlex.split(joined)
    except ValueError as error:
        raise NotUnderstoodError(f"its quotes do not close: {error}".lower()) from None
    found = _without_env(found)
    if not found:
        raise NotUnderstoodError("it is empty")
    program = found[0].rpartition("/")[2].removesuffix(".exe")
    if program in _SHELLS:
        raise NotUnderstoodError("it runs a shell; name the program and its words", program)
    for word in found:
        if word in _OPERATORS or "$(" in word or "`" in word:
            raise NotUnderstoodError(f"`{word}` is shell syntax, and there is no shell", word)
    return found


def _without_env(found: list[str]) -> list[str]:
    """`env A=1 program …` -> `program …`: what a program sees is decided by the plan."""
    if found[:1] != ["env"]:
        return found
    rest = found[1:]
    while rest and re.match(r"[A-Za-z_][A-Za-z0-9_]*=", rest[0]):
        rest = rest[1:]
    return rest


@dataclass(frozen=True, slots=True)
class Part:
    """A map of the configuration with its macros: typed reads that never raise but for `text`."""

    node: MapNode
    macros: Macros
    source: SourceFile = field(repr=False)

    def raw(self, *path: str) -> str | None:
        """The text at `path` as written."""
        found = at(self.node, *path)
        return found.text if isinstance(found, ScalarNode) else None

    def text(self, *path: str) -> str | None:
        """The text at `path` with macros filled in. Raises NotUnderstoodError."""
        found = self.raw(*path)
        return None if found is None else self.macros.expand(found).strip()

    def texts(self, *path: str) -> list[str]:
        """The texts of the list at `path`, macros filled in. Raises NotUnderstoodError."""
        found = at(self.node, *path)
        items = found.items if isinstance(found, SeqNode) else ()
        return [self.macros.expand(item.text) for item in items if isinstance(item, ScalarNode)]

    def number(self, *path: str) -> int | None:
        """The whole number at `path`."""
        found = self.raw(*path)
        return int(found) if found is not None and re.fullmatch(r"-?[0-9]{1,9}", found) else None

    def key(self, name: str) -> Span:
        """The place of the key `name`, or of the map."""
        entry = self.node.entries.get(name)
        return entry.key if entry is not None else self.node.span

    def place(self, name: str, part: str) -> Span:
        """The place of the text `part` inside the value of `name`; of the key when it does not stand there."""
        entry = self.node.entries.get(name)
        if entry is not None and part:
            start = self.source.text.find(part, entry.value.span.start, entry.value.span.end)
            if start >= 0:
                return self.source.span(start, start + len(part))
        return self.key(name)
