"""Where a secret may stand: only where its value is read at start and reaches no file of ours.

Owns IW305 for a reference in a place whose text is written out (a flag, an address, a prompt's binding, a variable), and
IW306 for a value typed where a reference belongs. Such a place is refused as a whole, so that nothing else is said
about it. Which places take a secret is read from the declared types.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from imageworks.diagnostics.model import Diagnostic, Fix, Label, Span
from imageworks.model.grammar import takes_secret
from imageworks.model.loaded import BUILT_IN
from imageworks.model.names import entries
from imageworks.model.scalars import VARIABLE
from imageworks.source.tree import BrokenNode, Entry, MapNode, Node, Path, ScalarNode, SeqNode, walk

REFERENCE = "secret"
SHORT = 20
"""Of a shorter text not even the beginning is shown."""


def guarded(root: MapNode, texts: Iterable[str]) -> tuple[MapNode, tuple[Diagnostic, ...]]:
    """`root` without what breaks the rule, and the findings; `texts` are those of the files it was read from."""
    found = dict(_typed(root))
    if any(REFERENCE in text for text in texts):  # most stacks have none: they need not be searched
        found |= dict(_written_out(root))
    if not found:
        return root, ()
    broken = _without(root, frozenset(found), ())
    return (broken if isinstance(broken, MapNode) else root), tuple(found.values())


def _typed(root: MapNode) -> Iterator[tuple[Path, Diagnostic]]:
    for place in (("models",), ("proxy", "auth", "keys")):
        for name, entry in entries(root, *place):
            node = entry.value.get("key") if isinstance(entry.value, MapNode) else None
            path = (*place, name, "key")
            if isinstance(node, ScalarNode) and node.text:
                yield path, in_the_file(node, path, "a key is never written here; it would be committed")


def in_the_file(node: ScalarNode, path: Path, label: str) -> Diagnostic:
    """The finding about a secret's value at `path`; masked wherever it is shown."""
    length = f"{len(node.text)} characters; masked here"
    told = length if len(node.text) < SHORT else f"begins {node.text[:4]}…, {length}"
    notes = (told, "if this file was ever pushed, replace the key")
    return Diagnostic(
        "IW306", "a secret stands in the file", Label(node.span, label), notes=notes, fixes=(_out_of_it(path),)
    )


def _out_of_it(path: Path) -> Fix:
    """What to write instead, in the words of the place."""
    own = path[-1]
    if own != "key" and (path[:1] != ("models",) or path[2:3] != ("env",)):
        return Fix("take it out of the file; a program that we start gets it through  env: {NAME: {secret: NAME}}")
    name = _name(f"{path[-2]}_KEY" if own == "key" else str(own))
    return Fix(
        f"export IMAGEWORKS_{name}=…, then  secrets: {{{name}: {{env: IMAGEWORKS_{name}}}}}  and  {own}: {{secret: {name}}}"
    )


def _name(text: str) -> str:
    name = "".join(char if char.isascii() and char.isalnum() else "_" for char in text.upper()).lstrip("_0123456789")
    return name or "KEY"


def _written_out(root: MapNode) -> Iterator[tuple[Path, Diagnostic]]:
    for path, _, node in walk(root):
        name = _reference(node)
        if name is not None and takes_secret(path) is False:
            yield path, would_be_written(path, node.span, name)


def _reference(node: Node) -> str | None:
    """The name in `{secret: NAME}`, None for anything else."""
    if not isinstance(node, MapNode) or list(node.entries) != [REFERENCE] or node.span.file == BUILT_IN:
        return None
    name = node.get(REFERENCE)
    return name.text if isinstance(name, ScalarNode) and VARIABLE.fullmatch(name.text) else None


def would_be_written(path: Path, span: Span, name: str) -> Diagnostic:
    """The finding about the secret `name` at `path`, whose text stands in generated files."""
    return Diagnostic(
        "IW305",
        f"secret {name} would be written into a file",
        Label(span, _where(path)),
        notes=("a secret reaches a program through its environment, and a remote server as its key; nothing else",),
        fixes=(_way(path, name),),
    )


def _where(path: Path) -> str:
    if path[:1] == ("variables",):
        return "variables are filled into texts that are written out"
    if path[2:3] == ("vllm",) or path[2:3] == ("command",):
        return "a command line stands in generated files, and everybody on the machine can read it"
    return "this value stands in generated files"


def _way(path: Path, name: str) -> Fix:
    if path[2:3] == ("vllm",):
        return Fix("remove the flag: vLLM listens on this machine only and needs no key")
    if path[2:3] == ("command",):
        return Fix(f"let the program read it from its environment:  env: {{{name}: {{secret: {name}}}}}")
    return Fix("write the value itself, or take the line out")


def _without(node: Node, refused: frozenset[Path], path: Path) -> Node:
    if path in refused:
        return BrokenNode(node.span)
    if isinstance(node, MapNode):
        done = {
            key: Entry(entry.key, _without(entry.value, refused, (*path, key)), entry.shadowed)
            for key, entry in node.entries.items()
        }
        return MapNode(done, node.span)
    if isinstance(node, SeqNode):
        return SeqNode(
            tuple(_without(item, refused, (*path, index)) for index, item in enumerate(node.items)), node.span
        )
    return node
