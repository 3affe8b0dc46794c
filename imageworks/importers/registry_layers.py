"""The JSON of the reference system's registries -> entries, each once.

Owns reading, the merge of the two layers (curated wins over discovered, as the reference system's code does it) and
the place of an entry in its file. Texts come out clean: no control characters, no half of a surrogate pair.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imageworks.diagnostics.model import Span
from imageworks.importers.report import Report
from imageworks.source.text import SourceFile

_UNWANTED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Entry:
    """One model as the registry has it, and where its name stands."""

    name: str
    data: Mapping[str, Any]
    span: Span | None

    def text(self, *path: str) -> str | None:
        """The text at `path`; None for anything else, for an empty text and for the text "None"."""
        value = self.get(*path)
        return value if isinstance(value, str) and value.strip() and value != "None" else None

    def get(self, *path: str) -> Any:
        """The value at `path`, or None."""
        node: Any = self.data
        for part in path:
            node = node.get(part) if isinstance(node, Mapping) else None
        return node

    def texts(self, *path: str) -> list[str]:
        """The texts of the list at `path`; numbers count as their digits."""
        value = self.get(*path)
        items = value if isinstance(value, list) else []
        return [str(item) for item in items if isinstance(item, str | int | float) and not isinstance(item, bool)]


@dataclass(slots=True)
class _Objects:
    """Keys that stand twice in one object; JSON readers keep the last in silence."""

    twice: list[str] = field(default_factory=list)

    def pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """One object."""
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            self.twice += sorted({name for name in names if names.count(name) > 1})
        return found


def read(source: SourceFile, report: Report) -> tuple[Entry, ...]:
    """The entries of one registry file; IW800 when it is none."""
    objects = _Objects()
    try:
        data = _clean(json.loads(source.text, object_pairs_hook=objects.pairs))
    except json.JSONDecodeError as error:
        report.tell("IW800", f"{source.name} is not JSON", source.span(error.pos, error.pos + 1), label=error.msg)
        return ()
    except (ValueError, RecursionError) as error:
        report.tell("IW800", f"{source.name} cannot be read", source.span(0, 1), str(error).splitlines()[0])
        return ()
    for name in dict.fromkeys(objects.twice):
        report.tell(
            "IW803", f"{source.name}: `{_clean_text(name)}` stands twice in one object", None, "the last counts"
        )
    return _entries(source, _records(data), report)


def _records(data: Any) -> list[Any] | None:
    """The list of entries: the file itself, its `models`, or a map by name."""
    inner = data.get("models", data) if isinstance(data, dict) else data
    if isinstance(inner, dict):
        return [{"name": name, **item} if isinstance(item, dict) else item for name, item in inner.items()]
    return inner if isinstance(inner, list) else None


def _entries(source: SourceFile, records: list[Any] | None, report: Report) -> tuple[Entry, ...]:
    if records is None:
        report.tell("IW800", f"{source.name} is not a registry", source.span(0, 1), "a list of entries is wanted")
        return ()
    places = _places(source)
    found: dict[str, Entry] = {}
    for number, item in enumerate(records, 1):
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str) or not name.strip():
            report.tell("IW802", f"entry {number} of {source.name} is left out: it has no name", None)
            continue
        if name in found:
            report.tell("IW804", f"{name} stands twice in {source.name}: the last counts", places.get(name))
        found[name] = Entry(name, item, places.get(name))
    return tuple(found.values())


_NAME = re.compile(r'"name"\s*:\s*("(?:[^"\\]|\\.)*")')


def _places(source: SourceFile) -> Mapping[str, Span]:
    """Name -> the place of the first `"name": …` that says it."""
    found: dict[str, Span] = {}
    for match in _NAME.finditer(source.text):
        try:
            name = _clean_text(json.loads(match[1], strict=False))
        except ValueError:
            continue
        found.setdefault(name, source.span(match.start(1), match.end(1)))
    return found


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean_text(key): _clean(item) for key, item in value.items()}
    return value


def _clean_text(text: str) -> str:
    return _UNWANTED.sub("", text)


def layered(curated: tuple[Entry, ...], discovered: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """All entries, the curated first: maps merge key by key, lists and single values replace, null replaces nothing."""
    below = {entry.name: entry for entry in discovered}
    merged = [
        Entry(entry.name, _over(below[entry.name].data, entry.data), entry.span) if entry.name in below else entry
        for entry in curated
    ]
    known = {entry.name for entry in curated}
    return (*merged, *(entry for entry in discovered if entry.name not in known))


def _over(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _over(merged[key], value)
        elif value is not None:
            merged[key] = value
    return merged
