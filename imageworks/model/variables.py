"""`${NAME}` in text values, from the stack's `variables:` block.

Owns interpolation: `$$` is a dollar, a `$` before anything else is itself. Reaches texts only; a number, a name or a
word of the language says what it is by itself. The environment is never read. Owns IW315, and IW305 for a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field

from imageworks.diagnostics.model import Diagnostic, Fix, Label, Span
from imageworks.model.closest import closest
from imageworks.model.grammar import takes_text
from imageworks.model.names import entries
from imageworks.model.scalars import VARIABLE
from imageworks.source.tree import BrokenNode, Entry, MapNode, Node, Path, ScalarNode, SeqNode
from imageworks.values import dataclass

COMMAND_WORDS = ("host", "port", "source", "name")
"""Filled in by the plan, in `models.M.command` only."""
_SLOT = re.compile(r"\$\$|\$\{([^{}]*)\}|\$\{")


def fill(root: MapNode) -> tuple[MapNode, tuple[Diagnostic, ...]]:
    """`root` with its variables filled in, and what is wrong with their use."""
    declared = {name: entry.value for name, entry in entries(root, "variables")}
    texts = {name: node for name, node in declared.items() if isinstance(node, ScalarNode)}
    filling = _Filling(texts, frozenset(name for name, _ in entries(root, "secrets")))
    filled = filling.map(root, ())
    return filled, tuple(filling.found)


@dataclass(slots=True)
class _Filling:
    """One pass over a tree; nodes without a `$` are taken over as they are."""

    variables: Mapping[str, ScalarNode]
    secrets: frozenset[str]
    found: list[Diagnostic] = field(default_factory=list)

    def map(self, node: MapNode, path: Path) -> MapNode:
        done: dict[str, Entry] = {}
        for key, entry in node.entries.items():
            if "${" in key:
                self._refuse(entry.key, "a variable cannot stand in a key", "keys are names of this language")
            else:
                done[key] = entry.with_value(self._node(entry.value, (*path, key)))
        same = all(done.get(key) is entry for key, entry in node.entries.items())
        return node if same else MapNode(done, node.span)

    def _node(self, node: Node, path: Path) -> Node:
        if isinstance(node, MapNode):
            return self.map(node, path)
        if isinstance(node, SeqNode):
            items = tuple(self._node(item, (*path, index)) for index, item in enumerate(node.items))
            return node if all(map(_same, items, node.items)) else SeqNode(items, node.span)
        return self._scalar(node, path) if isinstance(node, ScalarNode) and "$" in node.text else node

    def _scalar(self, node: ScalarNode, path: Path) -> Node:
        """The text with its slots filled; broken when one of them is refused, so that nothing else is said about it."""
        used = [match for match in _SLOT.finditer(node.text) if match[0] != "$$"]
        in_command = path[:1] == ("models",) and path[2:3] == ("command",)
        own = [match for match in used if not (in_command and match[1] in COMMAND_WORDS)]
        before = len(self.found)
        if own and path[:1] == ("variables",):
            self._refuse(node.span, "a variable cannot hold another", "variables are filled in once")
        elif own and not takes_text(path):
            self._refuse(node.span, "a variable cannot stand here", "only texts take variables")
        else:
            for match in own:
                self._require(node, match[1], in_command=in_command)
        if len(self.found) > before:
            return BrokenNode(node.span)
        if path[:1] == ("variables",) or not takes_text(path):
            return node
        text = _SLOT.sub(lambda match: self._value(match, in_command=in_command), node.text)
        return ScalarNode(text, node.plain and not own, node.span)

    def _value(self, match: re.Match[str], *, in_command: bool) -> str:
        """What stands for a slot. A command keeps its own words and `$$`, which the plan resolves."""
        if match[1] in self.variables:
            text = self.variables[match[1]].text
            return text.replace("$", "$$") if in_command else text
        return match[0] if in_command else "$"

    def _require(self, node: ScalarNode, name: str | None, *, in_command: bool) -> None:
        """Tell when `name` is no variable."""
        if name in self.variables:
            return
        if name is None:
            self._refuse(node.span, "`${` is not closed", "`}` ends it", "a literal dollar before `{` is written $$")
            return
        if name in self.secrets:
            self.found.append(_secret(node.span, name))
            return
        near = closest(name, [*self.variables, *(COMMAND_WORDS if in_command else ())])
        label = f"did you mean `${{{near}}}`?" if near else "no variable of this name"
        line = f"variables: {{{name if VARIABLE.fullmatch(name) else 'NAME'}: …}}"
        fixes = (Fix(f"${{{near}}}"),) if near else (Fix(f"declare it:  {line}"), Fix("a literal dollar is written $$"))
        self.found.append(Diagnostic("IW315", f"unknown variable `{name}`", Label(node.span, label), fixes=fixes))

    def _refuse(self, span: Span, message: str, label: str, fix: str = "write the value itself") -> None:
        self.found.append(Diagnostic("IW315", message, Label(span, label), fixes=(Fix(fix),)))


def _secret(span: Span, name: str) -> Diagnostic:
    return Diagnostic(
        "IW305",
        f"secret {name} would be written into a file",
        Label(span, f"{name} is a secret; only variables are filled into texts"),
        fixes=(Fix(f"where a secret may stand, in `key` and `env` of a model:  {{secret: {name}}}"),),
    )


def _same(one: Node, other: Node) -> bool:
    return one is other
