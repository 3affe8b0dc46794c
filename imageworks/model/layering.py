"""One layer of a stack over another: the merge rule and the suffixes of language.md section 6.

Owns `lay`: maps merge key by key, scalars and lists replace; `key+` appends to a list, `key-` removes items or keys
by name, `key=` replaces whole. Every entry remembers what it stands over. Owns IW312 and IW313. Reads no file.
"""

from __future__ import annotations

from collections.abc import Iterator

from imageworks.diagnostics.model import Diagnostic, Fix, Label
from imageworks.model.closest import closest, renaming
from imageworks.source.tree import BrokenNode, Entry, MapNode, Node, ScalarNode, SeqNode

ORDER = ("=", "-", "", "+")
"""In which order the forms of one key count when a layer has several; the order of lines never matters."""


def split(key: str) -> tuple[str, str]:
    """Name and suffix of a key.

    >>> split("models-"), split("context")
    (('models', '-'), ('context', ''))
    """
    return (key[:-1], key[-1]) if len(key) > 1 and key[-1] in "+-=" else (key, "")


def lay(below: MapNode, above: MapNode) -> tuple[MapNode, tuple[Diagnostic, ...]]:
    """`above` laid over `below`, and what its suffixes get wrong."""
    found: list[Diagnostic] = []
    return _maps(below, above, found), tuple(found)


def _maps(below: MapNode, above: MapNode, found: list[Diagnostic]) -> MapNode:
    entries = dict(below.entries)
    forms = [(*split(key), entry) for key, entry in above.entries.items()]
    for name, sign, entry in sorted(forms, key=lambda form: ORDER.index(form[1])):
        old = entries.get(name)
        if not sign:
            entries[name] = _over(old, entry, found)
        elif old is None:
            found.append(_nothing_below(name, sign, entry, tuple(below.entries)))
        else:
            entries[name] = _changed(name, sign, old, entry, found)
    return MapNode(entries, above.span)


def _over(old: Entry | None, entry: Entry, found: list[Diagnostic]) -> Entry:
    value = entry.value
    if isinstance(value, MapNode):
        under = old.value if old is not None and isinstance(old.value, MapNode) else MapNode({}, value.span)
        value = _maps(under, value, found)
    return Entry(entry.key, value, _shadowed(old))


def _shadowed(old: Entry | None) -> tuple[Entry, ...]:
    return () if old is None else (Entry(old.key, old.value), *old.shadowed)


def _changed(name: str, sign: str, old: Entry, entry: Entry, found: list[Diagnostic]) -> Entry:
    """`old` after `name<sign>: entry`; itself when that makes no sense, which is told."""
    value = entry.value
    if isinstance(value, BrokenNode) or isinstance(old.value, BrokenNode):
        return old
    if sign == "=":
        return _over(None, entry, found).with_shadowed(_shadowed(old))
    if not isinstance(value, SeqNode):
        label = Label(value.span, f"write  {name}{sign}: […]")
        found.append(Diagnostic("IW313", f"`{name}{sign}` wants a list", label))
        return old
    if sign == "-":
        return _without(name, old, entry, value, found)
    if isinstance(old.value, SeqNode):
        return Entry(entry.key, SeqNode((*old.value.items, *value.items), value.span), _shadowed(old))
    found.append(_not_a_list(name, old, entry))
    return old


def _without(name: str, old: Entry, entry: Entry, names: SeqNode, found: list[Diagnostic]) -> Entry:
    """`old` less the keys or items that `names` lists."""
    if not isinstance(old.value, MapNode | SeqNode):
        found.append(_not_a_list(name, old, entry))
        return old
    known = tuple(_names(old.value))
    gone = {item.text for item in names.items if isinstance(item, ScalarNode)}
    found += [
        _absent(name, item, known) for item in names.items if isinstance(item, ScalarNode) and item.text not in known
    ]
    if isinstance(old.value, MapNode):
        kept = {key: below for key, below in old.value.entries.items() if key not in gone}
        return Entry(old.key, MapNode(kept, old.value.span), old.shadowed)
    items = tuple(item for item in old.value.items if not (isinstance(item, ScalarNode) and item.text in gone))
    return Entry(entry.key, SeqNode(items, names.span), _shadowed(old))


def _names(node: Node) -> Iterator[str]:
    if isinstance(node, MapNode):
        yield from node.entries
    elif isinstance(node, SeqNode):
        yield from (item.text for item in node.items if isinstance(item, ScalarNode))


def _absent(name: str, item: ScalarNode, known: tuple[str, ...]) -> Diagnostic:
    near = closest(item.text, known)
    label = f"did you mean `{near}`?" if near else "nothing of this name below"
    fix = renaming(item.span, item.text, near, known, told=near) if near else Fix("remove it from the list")
    message = f"`{item.text}` is not in `{name}`, so it cannot be removed"
    return Diagnostic("IW312", message, Label(item.span, label), fixes=(fix,))


def _nothing_below(name: str, sign: str, entry: Entry, known: tuple[str, ...]) -> Diagnostic:
    near = closest(name, known)
    verb = {"+": "append to", "-": "remove from", "=": "replace"}[sign]
    label = f"did you mean `{near}{sign}`?" if near else "no lower layer has this key here"
    if near:
        fix = renaming(entry.key, name, near, known, sign=sign)
    else:
        fix = Fix("remove it" if sign == "-" else f"write `{name}:`")
    return Diagnostic("IW313", f"`{name}{sign}` has nothing to {verb}", Label(entry.key, label), fixes=(fix,))


def _not_a_list(name: str, old: Entry, entry: Entry) -> Diagnostic:
    is_map = isinstance(old.value, MapNode)
    label = Label(entry.key, f"`{name}` is {'a map: maps merge without a suffix' if is_map else 'a single value'}")
    below = Label(old.key, "stands here below")
    fix = Fix(f"write `{name}:`")
    return Diagnostic("IW313", f"`{name}` is not a list", label, secondary=(below,), fixes=(fix,))
