"""The tree from the parser's events, with a finding for everything that the language leaves out of YAML.

Owns duplicate keys (IW103), anchors, aliases, merge keys and tags (IW104), keys that are not words (IW109) and the
depth limit. Knows no YAML library.
"""

from __future__ import annotations

from dataclasses import field

from imageworks.diagnostics.model import Diagnostic, Fix, Label, Span
from imageworks.source.tree import BrokenNode, Entry, MapNode, Node, ScalarNode, SeqNode
from imageworks.values import dataclass

DEEPEST = 50


@dataclass(slots=True)
class _Open:
    """A map or list that is not closed yet."""

    is_map: bool
    start: Span
    entries: dict[str, Entry] = field(default_factory=dict)
    items: list[Node] = field(default_factory=list)
    key: Node | None = None

    @property
    def wants_key(self) -> bool:
        return self.is_map and self.key is None


class Builder:
    """Takes events in document order; `root` is the finished tree, `found` the findings.

    Once `too_deep` is set the reader stops: what is nested that deep was not written by hand.
    """

    def __init__(self) -> None:
        self.root: Node | None = None
        self.found: list[Diagnostic] = []
        self._open: list[_Open] = []
        self.too_deep = False

    def start(self, span: Span, *, is_map: bool, anchor: bool, tag: bool) -> None:
        """A map or list begins."""
        self._refuse_decoration(span, anchor=anchor, tag=tag)
        if len(self._open) >= DEEPEST:
            self.too_deep = True
            message = f"nested more than {DEEPEST} deep"
            self.found.append(Diagnostic("IW109", message, Label(span, "nothing in this language is")))
            return
        self._open.append(_Open(is_map, span))

    def end(self, span: Span) -> None:
        """The innermost map or list ends; `span` is its closing sign, or empty where there is none."""
        done = self._open.pop()
        whole = _join(done.start, span if span.end > span.start else self._last_span(done))
        self._add(MapNode(done.entries, whole) if done.is_map else SeqNode(tuple(done.items), whole))

    def scalar(self, text: str, span: Span, *, plain: bool, anchor: bool, tag: bool) -> None:
        """A text."""
        self._refuse_decoration(span, anchor=anchor, tag=tag)
        self._add(ScalarNode(text, plain, span))

    def alias(self, span: Span) -> None:
        """A reference to an anchor."""
        self._refuse_decoration(span, anchor=True, tag=False)
        self._add(BrokenNode(span))

    def _refuse_decoration(self, span: Span, *, anchor: bool, tag: bool) -> None:
        merging = self._merge_key()
        if not anchor and not tag:
            return
        what = "anchors and merge keys are" if anchor else "tags are"
        label = (
            "a merged value has no line of its own to explain" if anchor else "the field decides the type of its value"
        )
        fix = Fix(
            "put shared values under `defaults:` or `backends:`, or use `source: {same_as: …}`"
            if anchor
            else "remove the tag"
        )
        where = _join(merging, span) if merging is not None else span
        self.found.append(Diagnostic("IW104", f"{what} not part of this language", Label(where, label), fixes=(fix,)))

    def _merge_key(self) -> Span | None:
        top = self._open[-1] if self._open else None
        if top is None or not top.is_map or not isinstance(top.key, ScalarNode):
            return None
        return top.key.span if top.key.text == "<<" and top.key.plain else None

    def _last_span(self, done: _Open) -> Span:
        if done.is_map:
            return max(
                (entry.value.span for entry in done.entries.values()), key=lambda span: span.end, default=done.start
            )
        return done.items[-1].span if done.items else done.start

    def _add(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        top = self._open[-1]
        if top.wants_key:
            top.key = node
        elif top.is_map and top.key is not None:
            key, top.key = top.key, None
            self._add_entry(top, key, node)
        else:
            top.items.append(node)

    def _add_entry(self, top: _Open, key: Node, value: Node) -> None:
        if not isinstance(key, ScalarNode):
            if not isinstance(key, BrokenNode):
                self.found.append(
                    Diagnostic("IW109", "a key is a single word", Label(key.span, "a map or list stands here"))
                )
        elif key.text == "<<" and key.plain:
            if not isinstance(value, BrokenNode):
                self._refuse_decoration(_join(key.span, value.span), anchor=True, tag=False)
        elif key.text in top.entries:
            self._duplicate(key, top.entries[key.text].key)
        else:
            top.entries[key.text] = Entry(key.span, value)

    def _duplicate(self, key: ScalarNode, first: Span) -> None:
        label = Label(key.span, "second time; YAML readers would silently keep this one")
        fix = Fix(f"rename it, or merge its keys into line {first.line}")
        message = f"`{key.text}` is declared twice"
        self.found.append(Diagnostic("IW103", message, label, secondary=(Label(first, "first here"),), fixes=(fix,)))


def _join(first: Span, last: Span) -> Span:
    return Span(first.file, first.start, last.end, first.line, first.column, last.end_line, last.end_column)
